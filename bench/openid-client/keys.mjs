// A service that proves itself by its own key (`private_key_jwt`), by openid-client with its defaults: each kind of key.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import * as oidc from 'openid-client';

const { ORIGIN, BASTIDE } = process.env;
let steps = 0;
const step = (what) => { steps += 1; console.log(`ok ${steps} ${what}`); };
const bastide = (args, input) => execFileSync(BASTIDE, ['--json', ...args], { input, encoding: 'utf8' });

const kinds = {
  ES256: { name: 'ECDSA', namedCurve: 'P-256' },
  EdDSA: { name: 'Ed25519' },
  RS256: { name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
  PS256: { name: 'RSA-PSS', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
};

/** A key pair, and its public half as an administrator gives it. */
async function made(alg) {
  const { privateKey, publicKey } = await crypto.subtle.generateKey(kinds[alg], true, ['sign', 'verify']);
  const jwk = await crypto.subtle.exportKey('jwk', publicKey);
  const kid = `${alg}-${randomUUID()}`;
  return { key: privateKey, kid, jwk: JSON.stringify({ ...jwk, kid, alg }) };
}

/** Signs in as the service does and asks about its own token, which needs an assertion of its own. */
async function works(issuer, id, { key, kid }) {
  const config = await oidc.discovery(new URL(issuer), id, undefined, oidc.PrivateKeyJwt({ key, kid }));
  const tokens = await oidc.clientCredentialsGrant(config);
  const said = await oidc.tokenIntrospection(config, tokens.access_token);
  assert.deepEqual([said.active, said.sub], [true, id]);
  return { config, tokens };
}

const issuers = [`${ORIGIN}/identity`, `${ORIGIN}/identity/s/development`];
for (const alg of Object.keys(kinds)) {
  const id = `by-${alg.toLowerCase()}`;
  const [first, second] = [await made(alg), await made(alg)];
  const created = JSON.parse(bastide(['client', 'create', '--id', id, '--kind', 'service', '--keys', '-'], first.jwk));
  assert.equal(created.secret, undefined);
  for (const issuer of issuers) {
    await works(issuer, id, first);
    step(`${alg} at ${issuer}`);
  }
  await assert.rejects(works(issuers[0], id, second), { status: 401 });
  step(`${alg}: a key that was not given proves nothing`);
  bastide(['client', 'key', 'add', id, '-'], second.jwk);
  const { tokens } = await works(issuers[0], id, second);
  const { config } = await works(issuers[0], id, first);
  bastide(['client', 'key', 'remove', id, second.kid]);
  assert.equal((await oidc.tokenIntrospection(config, tokens.access_token)).active, false);
  await assert.rejects(works(issuers[0], id, second), { status: 401 });
  step(`${alg}: a token dies with its key`);
}
const pair = await crypto.subtle.generateKey(kinds.ES256, true, ['sign', 'verify']);
const secret = JSON.stringify({ ...(await crypto.subtle.exportKey('jwk', pair.privateKey)), kid: 'private' });
assert.throws(() => bastide(['client', 'key', 'add', 'by-es256', '-'], secret));
step('a private key is refused');
console.log(`openid-client with keys: all ${steps} steps`);
