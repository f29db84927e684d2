// How a machine comes into the farm, as api/join says it.
export interface Join {
  command: string;
  url: string;
  token_needed: boolean;
  token?: string;
  note: string;
}
// What lets other machines reach a server that has no token.
export const open_up = '(umask 077; openssl rand -hex 32 > token)\ngrange up --host 0.0.0.0 --token-file token';
