"""Other relying parties with their defaults: Authlib, requests-oauthlib, pyoidc. Each step fails loudly."""
import base64, hashlib, html, json, os, re, secrets, socket
from urllib.parse import urljoin, urlsplit

import requests
from authlib.integrations.requests_client import OAuth2Session
from oic.oic import Client
from oic.oic.message import AuthorizationResponse, RegistrationResponse
from oic.utils.authn.client import CLIENT_AUTHN_METHOD
from requests_oauthlib import OAuth2Session as PublicSession

resolve = socket.getaddrinfo
# Names below `.localhost` are this machine (RFC 6761 §6.3), also where the resolver does not know it.
socket.getaddrinfo = lambda host, *rest, **more: resolve(
    "127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **more
)
os.environ["REQUESTS_CA_BUNDLE"] = os.environ["NODE_EXTRA_CA_CERTS"]
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # oauthlib knows no loopback exception for redirects.
MEMBER = os.environ["MEMBER"]
ISSUER = os.environ["ORIGIN"] + "/identity"
web, spa = json.loads(os.environ["WEB"]), json.loads(os.environ["SPA"])
REDIRECT, LOOPBACK = "https://rp.example/cb", "http://127.0.0.1:49153/cb"


def sign_in(url):
    """Fills in the sign-in page; returns where the answer goes."""
    browser = requests.Session()
    page = browser.get(url, allow_redirects=False)
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
    form = {html.unescape(name): html.unescape(value) for name, value in hidden}
    form |= {"username": MEMBER, "password": os.environ["PASSWORD"]}
    action = re.search(r'action="([^"]*)"', page.text)[1]
    answer = browser.post(urljoin(url, action), data=form, allow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


described = requests.get(ISSUER + "/.well-known/openid-configuration").json()
token_url, userinfo_url = described["token_endpoint"], described["userinfo_endpoint"]

client = OAuth2Session(
    web["id"], web["secret"], scope="openid email", redirect_uri=REDIRECT, code_challenge_method="S256"
)
verifier = secrets.token_urlsafe(48)
url, state = client.create_authorization_url(described["authorization_endpoint"], code_verifier=verifier)
client.fetch_token(token_url, authorization_response=sign_in(url), code_verifier=verifier, state=state)
assert client.get(userinfo_url).json()["email"] == MEMBER
client.refresh_token(token_url)
access = client.token["access_token"]
inspect = lambda: client.introspect_token(described["introspection_endpoint"], token=access).json()["active"]
assert inspect() is True
client.revoke_token(described["revocation_endpoint"], token=client.token["refresh_token"]).raise_for_status()
assert inspect() is False
print("ok Authlib: code, userinfo, refresh, introspection, revocation")

public = PublicSession(spa["id"], redirect_uri=LOOPBACK, scope=["openid", "email"], pkce="S256")
url, _ = public.authorization_url(described["authorization_endpoint"])
public.fetch_token(token_url, authorization_response=sign_in(url), include_client_id=True)
assert public.get(userinfo_url).json()["email"] == MEMBER
public.refresh_token(token_url, client_id=spa["id"])
print("ok requests-oauthlib: a public client, code, userinfo, refresh")

pyoidc = Client(client_authn_method=CLIENT_AUTHN_METHOD)
pyoidc.provider_config(ISSUER)
pyoidc.store_registration_info(
    RegistrationResponse(client_id=web["id"], client_secret=web["secret"], redirect_uris=[REDIRECT])
)
state, nonce = secrets.token_urlsafe(), secrets.token_urlsafe()
challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
asked = pyoidc.construct_AuthorizationRequest(
    request_args={
        "response_type": "code", "scope": ["openid", "email"], "redirect_uri": REDIRECT, "state": state,
        "nonce": nonce, "code_challenge": challenge, "code_challenge_method": "S256",
    }
)
query = urlsplit(sign_in(asked.request(pyoidc.authorization_endpoint))).query
answer = pyoidc.parse_response(AuthorizationResponse, info=query, sformat="urlencoded")
tokens = pyoidc.do_access_token_request(
    state=state, authn_method="client_secret_basic",
    request_args={"code": answer["code"], "redirect_uri": REDIRECT, "code_verifier": verifier},
)
assert tokens["id_token"]["nonce"] == nonce and tokens["id_token"]["email"] == MEMBER
assert pyoidc.do_user_info_request(state=state)["email"] == MEMBER
print("ok pyoidc: provider configuration, code, ID token, userinfo")
