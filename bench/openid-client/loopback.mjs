// Names below `.localhost` are this machine (RFC 6761 §6.3), also where the resolver does not know it.
import dns from 'node:dns';

const lookup = dns.lookup;
dns.lookup = (name, options, done) => {
  if (!name.endsWith('.localhost')) return lookup(name, options, done);
  const [wanted, tell] = typeof options === 'function' ? [{}, options] : [options, done];
  const found = { address: '127.0.0.1', family: 4 };
  process.nextTick(() => (wanted.all ? tell(null, [found]) : tell(null, found.address, found.family)));
};
