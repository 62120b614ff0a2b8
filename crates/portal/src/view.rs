//! What the API answers, as far as the pages show it.

use serde::Deserialize;

/// Who looks.
#[derive(Debug, Deserialize)]
pub struct Who {
    /// Name to show.
    pub name: String,
    /// Customer.
    pub customer: String,
    /// What the roles of this one hold.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// What everybody should know who runs apps here.
    #[serde(default)]
    pub warning: Option<String>,
}

impl Who {
    /// Whether this is the operator organization.
    pub fn is_operator(&self) -> bool {
        self.customer == "operator"
    }
    /// Whether this one may invite.
    pub fn may_invite(&self) -> bool {
        self.may("members.write")
    }
    /// Whether this one may deploy.
    pub fn may_deploy(&self) -> bool {
        self.may("apps.deploy")
    }

    fn may(&self, permission: &str) -> bool {
        self.permissions.iter().any(|one| one == permission)
    }
}

/// An app.
#[derive(Debug, Deserialize)]
pub struct App {
    /// Name.
    pub name: String,
    /// Stages, first to last.
    #[serde(default)]
    pub stages: Vec<InStage>,
}

/// An app in a stage.
#[derive(Debug, Deserialize)]
pub struct InStage {
    /// Name of the stage.
    pub stage: String,
    /// `serving`, `starting` or `absent`.
    pub status: String,
    /// Revision that serves.
    pub revision: Option<u32>,
    /// Digest of its image.
    pub image: Option<String>,
    /// Address.
    pub url: String,
    /// How many replicas there may be.
    #[serde(default)]
    pub scale: Option<Scale>,
    /// Replicas.
    #[serde(default)]
    pub replicas: Vec<Replica>,
}

/// How many replicas there may be.
#[derive(Debug, Deserialize)]
pub struct Scale {
    /// Fewest.
    pub min: u32,
    /// Most.
    pub max: u32,
    /// Why there are as many as there are.
    pub why: Option<String>,
}

impl InStage {
    /// The address, if it is one that a link may lead to.
    pub fn link(&self) -> Option<&str> {
        Some(self.url.as_str()).filter(|url| url.starts_with("https://"))
    }
    /// Ready replicas.
    pub fn ready(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.state == "ready").count()
    }
}

impl App {
    /// Stages in which another revision serves than in the stage before: what can be promoted there.
    pub fn promotable(&self, stage: &str) -> bool {
        let at = self.stages.iter().position(|found| found.stage == stage).unwrap_or(0);
        let Some(before) = at.checked_sub(1).and_then(|before| self.stages.get(before)) else {
            return false;
        };
        before.revision.is_some() && before.revision != self.stages[at].revision
    }
}

/// A replica.
#[derive(Debug, Deserialize)]
pub struct Replica {
    /// Id.
    pub id: String,
    /// Zone.
    pub zone: String,
    /// State.
    pub state: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// How it ended last.
    #[serde(default)]
    pub last_end: Option<End>,
    /// What it uses.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// How a replica ended.
#[derive(Debug, Deserialize)]
pub struct End {
    /// Why.
    pub why: String,
}

/// What a replica uses, and what it may use.
#[derive(Debug, Deserialize)]
pub struct Usage {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Limit.
    pub cpu_millis_max: u64,
    /// Memory.
    pub memory_bytes: u64,
    /// Limit.
    pub memory_bytes_max: u64,
}

impl Usage {
    /// Processor use in percent of the limit.
    pub fn cpu_percent(&self) -> u64 {
        self.cpu_millis * 100 / self.cpu_millis_max.max(1)
    }
    /// Memory in MiB.
    pub fn memory_mb(&self) -> u64 {
        self.memory_bytes.div_ceil(1024 * 1024)
    }
    /// Limit of memory in MiB.
    pub fn memory_mb_max(&self) -> u64 {
        self.memory_bytes_max / (1024 * 1024)
    }
}

/// An operation.
#[derive(Debug, Deserialize)]
pub struct Operation {
    /// Kind.
    pub kind: String,
    /// App.
    pub app: String,
    /// Stage.
    pub stage: String,
    /// `running`, `finished` or `failed`.
    pub status: String,
    /// Steps.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Why it failed.
    pub problem: Option<bastide_types::Problem>,
}

/// A step of an operation.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Name.
    pub name: String,
    /// Status.
    pub status: String,
    /// What happened.
    pub message: Option<String>,
}

/// A begun operation.
#[derive(Debug, Deserialize)]
pub struct Begun {
    /// Its id.
    pub operation: String,
}

/// A member.
#[derive(Debug, Deserialize)]
pub struct Member {
    /// E-mail address.
    pub email: String,
    /// Name.
    pub name: String,
    /// State.
    pub state: String,
    /// Roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// An invitation.
#[derive(Debug, Deserialize)]
pub struct Invited {
    /// The link.
    pub link: String,
}

/// A customer.
#[derive(Debug, Deserialize)]
pub struct Customer {
    /// Name.
    pub name: String,
    /// Address of its Platform.
    pub platform_url: String,
}

/// A created customer.
#[derive(Debug, Deserialize)]
pub struct Created {
    /// Name.
    pub name: String,
    /// Address of its Platform.
    pub platform_url: String,
    /// Link for its administrator.
    pub invitation_link: String,
    /// API client.
    pub client: Client,
}

/// An API client with its secret.
#[derive(Debug, Deserialize)]
pub struct Client {
    /// Id.
    pub id: String,
    /// Secret, shown this once.
    pub secret: bastide_types::Secret,
}
