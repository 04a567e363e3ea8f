// What a refusal means for the person who asked, and what that person can do.

import { Failure } from "./api";

const WORDS: Record<string, string> = {
  "23505": "This serial number is taken. Each widget needs a different one; serial numbers are case-sensitive.",
  "22P02": "A value has the wrong type. Port types are P, R and Q, in capitals.",
  "23502": "A required value is missing.",
  WG001: "There is no such widget. Serial numbers are case-sensitive.",
  WG002: "All slots of this port type are in use, or there are none. Remove an association first, or choose another widget.",
  WG003: "These widgets are already associated over this port type. Two widgets can be associated once for each port type.",
  WG004: "These widgets are not associated over this port type, so there is nothing to remove.",
  WG005: "A widget cannot be associated with itself. Name two different widgets.",
  WG006: "A widget has at most three slots.",
  WG007: "A text is empty, too long, or contains a NUL character.",
  WG010: "Lists can be ordered only by serial number.",
  WG011: "Together, the rows are longer than an answer may be. Use limit to ask for fewer at a time.",
  WG410: "Some changes are no longer kept, or the store was restored. The list continues with the oldest change that is kept.",
  WG429: "Too many requests from this address. Wait a moment.",
  WG501: "This store keeps no changes, so there is nothing to show here.",
  WG503: "The service is busy. Nothing was changed; try again in a moment.",
  WG504: "The service accepts no operations at present. Nothing was changed. The service's log contains the reason.",
  WG409: "The same operation is still in progress. Wait a moment, and try again.",
  WG505: "The operation may or may not have been applied. Trying again is safe: it is applied only once.",
  WG507: "This is a standby, which accepts no changes. Use the primary, whose address is in the answer.",
  WG506: "The service cannot check tokens yet: the keys for them have not arrived. Try again in a moment.",
  "57014": "The search took too long. Narrow it by the beginning of the serial number or by a free slot.",
  "42501": "Your role does not allow this. Enter a token with another role at the top.",
  "42703": "There is no such column. The columns are serial_number, name and slots.",
  PGRST100: "The filter is malformed. Write COLUMN=OPERATOR.VALUE, as in name=like.*pump*.",
  PGRST116: "There is no such widget.",
  "22023": "The service does not know the role of this token. Enter another token at the top.",
  PGRST300: "The service requires no token, and cannot check yours. Forget it at the top.",
  PGRST301: "The token is not accepted. Enter another one.",
  PGRST302: "The service requires a token.",
  PGRST303: "The token is not valid at this time: it may have expired. Enter another one.",
};

/** Explains a failure in words, or returns null if the service's own message is enough. */
export function explain(failure: unknown): string | null {
  if (!(failure instanceof Failure)) return null;
  return WORDS[failure.code] ?? null;
}

export const messageOf = (failure: unknown): string => (failure instanceof Error ? failure.message : String(failure));
