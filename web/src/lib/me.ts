// What the role of somebody may do. Pure.
export interface Me {
  name: string;
  role: string;
  kind: string; // local | token | named
  may?: string[]; // actions, to everything
  own?: string[]; // only to what is one's own
}

// Why it may not be done; "" if it may. Without an owner it is nobody's, or one's own to be.
export function refusal(me: Me | null, action: string, owner?: string): string {
  if (!me?.may || me.may.includes(action)) return '';
  if (me.own?.includes(action)) return !owner || owner === me.name ? '' : `You are ${me.name} (${me.role}): you may do that only to what is yours, and this is of ${owner}.`;
  return `You are ${me.name} (${me.role}): your role may not do that. An admin may.`;
}
