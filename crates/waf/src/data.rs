//! What a transaction knows of its request: named values, each with a number of its own.

use bytes::Bytes;

/// A named value.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Name within its collection, as sent.
    pub(crate) key: Bytes,
    /// The value.
    pub(crate) value: Bytes,
    /// Number of the value within the transaction; transformations are remembered by it. 0: not remembered.
    pub(crate) id: u32,
    /// Number of the name as a value.
    pub(crate) key_id: u32,
}

/// Values of one kind.
pub(crate) type Items = Vec<Item>;

/// Everything that rules can ask for, but for `TX` and what belongs to the evaluation itself.
#[derive(Debug, Default)]
pub(crate) struct Data {
    next: u32,
    pub(crate) args_get: Items,
    pub(crate) args_post: Items,
    pub(crate) cookies: Items,
    pub(crate) request_headers: Items,
    pub(crate) response_headers: Items,
    pub(crate) files: Items,
    pub(crate) files_sizes: Items,
    pub(crate) part_headers: Items,
    pub(crate) xml_text: Items,
    pub(crate) xml_attributes: Items,
    pub(crate) scalars: std::collections::HashMap<Scalar, Item>,
    pub(crate) flags: Flags,
}

/// Single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scalar {
    Method,
    Uri,
    UriRaw,
    Line,
    Protocol,
    Filename,
    Basename,
    Query,
    RemoteAddr,
    RemotePort,
    ServerAddr,
    ServerPort,
    ServerName,
    RequestBody,
    RequestBodyLength,
    BodyProcessor,
    ResponseBody,
    ResponseStatus,
    ResponseProtocol,
    ResponseContentType,
    ResponseContentLength,
    UniqueId,
    PathInfo,
    AuthType,
}

/// What went wrong with a body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    pub(crate) body_error: bool,
    pub(crate) body_error_message: String,
    pub(crate) multipart_strict_error: bool,
    pub(crate) multipart_unmatched_boundary: bool,
}

impl Data {
    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A value with numbers of its own.
    pub(crate) fn item(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Item {
        let (id, key_id) = (self.number(), self.number());
        Item { key: key.into(), value: value.into(), id, key_id }
    }

    pub(crate) fn set(&mut self, scalar: Scalar, value: impl Into<Bytes>) {
        let item = self.item(Bytes::new(), value);
        self.scalars.insert(scalar, item);
    }
}
