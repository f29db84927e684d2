// Tokens: roles in words, names, and how one is used. Pure.
export interface Token {
  name: string;
  role: string;
  created_ms: number;
  created_by: string;
  expires_ms: number | null;
  last_used_ms: number | null;
  expired: boolean;
}
export type Made = Pick<Token, 'name' | 'role' | 'expires_ms'> & { token: string };

export const roles = [
  { id: 'user', text: 'submits work and uses models; changes only jobs of its own' },
  { id: 'viewer', text: 'sees everything, changes nothing' },
  { id: 'admin', text: 'does everything, this page included' },
  { id: 'worker', text: 'a machine that works for the farm, nothing else' },
  { id: 'models', text: 'a program that uses the models through the gateway, nothing else' },
];
export const lifetimes = [
  ['86400', 'a day'],
  ['604800', '7 days'],
  ['2592000', '30 days'],
  ['7776000', '90 days'],
  ['31536000', 'a year'],
  ['', 'until it is revoked'],
] as const;

const taken = ['token', 'local', 'anonymous', 'schedule'];
export function bad_token_name(name: string, all: readonly Pick<Token, 'name'>[]): string {
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(name)) return 'Up to 64 letters, digits, “.”, “_” and “-”';
  if (taken.includes(name)) return `“${name}” is a name that the farm itself uses`;
  return all.some((one) => one.name === name) ? 'There is one of this name: revoke it first, or take another name' : '';
}

// The lines that use it, for whom it is meant. The secret itself stays out of what others see of a machine.
export function use_of({ role, token }: Pick<Made, 'role' | 'token'>, url: string): { title: string; text: string } {
  const server = url.replace(/\/$/, '');
  if (role === 'worker')
    return { title: 'On the machine that joins', text: `(umask 077; echo '${token}' > grange-token)\ngrange worker --server ${server} --token-file grange-token` };
  if (role === 'models')
    return { title: "For a program that speaks OpenAI's dialect", text: `export OPENAI_BASE_URL=${server}/v1\nexport OPENAI_API_KEY=${token}` };
  return { title: 'In a terminal; in a browser the page asks for it', text: `export GRANGE_URL=${server}\nexport GRANGE_TOKEN=${token}` };
}
