// Every flow of a relying party, by openid-client with its defaults. Each step fails loudly.
import assert from 'node:assert/strict';
import * as oidc from 'openid-client';

const { ORIGIN, MEMBER, PASSWORD } = process.env;
const [web, spa, job, tv] = ['WEB', 'SPA', 'JOB', 'TV'].map((name) => JSON.parse(process.env[name]));
let steps = 0;
const step = (what) => { steps += 1; console.log(`ok ${steps} ${what}`); };

/** A browser without scripts: cookies, forms, and redirects within the provider. */
class Browser {
  cookies = new Map();

  async go(url, form) {
    for (let hops = 0; hops < 10; hops += 1) {
      const headers = { accept: 'text/html', cookie: [...this.cookies].map((pair) => pair.join('=')).join('; ') };
      if (form) Object.assign(headers, { origin: ORIGIN, 'sec-fetch-site': 'same-origin' });
      const answer = await fetch(url, { redirect: 'manual', headers, method: form ? 'POST' : 'GET', body: form });
      for (const cookie of answer.headers.getSetCookie()) {
        const [name, value] = cookie.split(';')[0].split('=');
        if (value) this.cookies.set(name, value); else this.cookies.delete(name);
      }
      const to = answer.headers.get('location');
      if (!to) return { url, status: answer.status, page: await answer.text() };
      url = new URL(to, url);
      form = undefined;
      if (url.origin !== ORIGIN) return { url };
    }
    throw new Error('too many redirects');
  }

  /** Sends the first form of a page with these fields. */
  submit({ url, page }, typed = {}) {
    const plain = (text) => text.replaceAll('&#38;', '&').replaceAll('&#34;', '"').replaceAll('&amp;', '&');
    const html = page.slice(page.indexOf('<form'), page.indexOf('</form>'));
    const form = new URLSearchParams();
    for (const [tag] of html.matchAll(/<input type="hidden"[^>]*>/g)) {
      form.set(plain(/name="([^"]*)"/.exec(tag)[1]), plain(/value="([^"]*)"/.exec(tag)[1]));
    }
    for (const [name, value] of Object.entries(typed)) {
      assert.match(html, new RegExp(`name="${name}"`));
      form.set(name, value);
    }
    return this.go(new URL(plain(/action="([^"]*)"/.exec(html)[1]), url), form);
  }

  async signIn(url) {
    const arrived = await this.go(url);
    return arrived.page ? this.submit(arrived, { username: MEMBER, password: PASSWORD }) : arrived;
  }
}

/** Code with PKCE, state and nonce; the answer's tokens, checked by the client. */
async function codeFlow(config, browser, redirect_uri, more = {}) {
  const verifier = oidc.randomPKCECodeVerifier();
  const [state, nonce] = [oidc.randomState(), oidc.randomNonce()];
  const url = oidc.buildAuthorizationUrl(config, {
    redirect_uri,
    scope: 'openid profile email',
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
    ...more,
  });
  const answered = await browser.signIn(url);
  return oidc.authorizationCodeGrant(config, answered.url, {
    pkceCodeVerifier: verifier,
    expectedState: state,
    expectedNonce: nonce,
    ...(more.max_age ? { maxAge: Number(more.max_age) } : {}),
    idTokenExpected: true,
  });
}

/** Signs in at the page for codes and allows what asks. */
async function allow(browser, link) {
  const page = await browser.go(new URL(link));
  const typed = page.page.includes('name="password"') ? { username: MEMBER, password: PASSWORD } : {};
  const code = new URL(link).searchParams.get('user_code');
  const question = await browser.submit(page, { ...typed, user_code: code });
  const done = await browser.submit(question, { decision: 'allow' });
  assert.match(done.page, /is signed in/);
}

const issuers = [`${ORIGIN}/identity`, `${ORIGIN}/identity/s/development`];
for (const issuer of issuers) {
  const browser = new Browser();
  const config = await oidc.discovery(new URL(issuer), web.id, web.secret);
  assert.equal(config.serverMetadata().issuer, issuer);
  step(`discovery of ${issuer}`);
  const above = await oidc.discovery(new URL(issuer), web.id, web.secret, undefined, { algorithm: 'oauth2' });
  assert.deepEqual(above.serverMetadata().token_endpoint, config.serverMetadata().token_endpoint);
  step('the same by RFC 8414');

  const tokens = await codeFlow(config, browser, 'https://rp.example/cb', { max_age: '600' });
  const claims = tokens.claims();
  assert.equal(claims.email, MEMBER);
  step('code with PKCE, state, nonce and max_age; iss of the answer; ID token');
  const said = await oidc.fetchUserInfo(config, tokens.access_token, claims.sub);
  assert.equal(said.email, MEMBER);
  step('userinfo');
  const again = await codeFlow(config, browser, 'https://rp.example/cb', { prompt: 'none' });
  assert.equal(again.claims().sub, claims.sub);
  step('prompt=none while signed in');
  await assert.rejects(codeFlow(config, new Browser(), 'https://rp.example/cb', { prompt: 'none' }), { error: 'login_required' });
  step('prompt=none while nobody is');
  const fresh = await oidc.refreshTokenGrant(config, tokens.refresh_token);
  assert.equal(fresh.claims().sub, claims.sub);
  step('refresh, with an ID token of the same user');
  const active = await oidc.tokenIntrospection(config, fresh.access_token);
  assert.equal(active.active, true);
  step('introspection');
  await oidc.tokenRevocation(config, fresh.refresh_token);
  assert.equal((await oidc.tokenIntrospection(config, fresh.access_token)).active, false);
  await assert.rejects(oidc.refreshTokenGrant(config, fresh.refresh_token), { error: 'invalid_grant' });
  step('revocation ends refresh and access token');
  await assert.rejects(oidc.fetchUserInfo(config, fresh.access_token, claims.sub));
  step('userinfo refuses the dead');

  const last = await codeFlow(config, browser, 'https://rp.example/cb');
  const end = oidc.buildEndSessionUrl(config, {
    post_logout_redirect_uri: 'https://rp.example/bye',
    id_token_hint: last.id_token,
    state: 'bye',
  });
  assert.equal((await browser.go(end)).url.href, 'https://rp.example/bye?state=bye');
  assert.equal((await oidc.tokenIntrospection(config, last.access_token)).active, false);
  step('sign-out with a hint ends the session and leads back');

  const basic = await oidc.discovery(new URL(issuer), web.id, undefined, oidc.ClientSecretBasic(web.secret));
  await codeFlow(basic, new Browser(), 'https://rp.example/cb');
  step('client_secret_basic');
  const open = await oidc.discovery(new URL(issuer), spa.id, undefined, oidc.None());
  const own = await codeFlow(open, new Browser(), 'http://127.0.0.1:49152/cb');
  await oidc.refreshTokenGrant(open, own.refresh_token);
  await assert.rejects(oidc.refreshTokenGrant(open, own.refresh_token), { error: 'invalid_grant' });
  step('a public client on a free loopback port; a refresh token twice ends its session');
  const service = await oidc.discovery(new URL(issuer), job.id, job.secret);
  const token = await oidc.clientCredentialsGrant(service);
  assert.equal((await oidc.tokenIntrospection(service, token.access_token)).sub, job.id);
  step('client credentials');
  const device = await oidc.discovery(new URL(issuer), tv.id, undefined, oidc.None());
  const waiting = await oidc.initiateDeviceAuthorization(device, { scope: 'openid email' });
  await allow(new Browser(), waiting.verification_uri_complete);
  const shown = await oidc.pollDeviceAuthorizationGrant(device, waiting);
  assert.equal(shown.claims().email, MEMBER);
  step('device code');
}
await allow(new Browser(), process.env.CLI_LINK);
step('the command line is allowed');
console.log(`openid-client: all ${steps} steps`);
