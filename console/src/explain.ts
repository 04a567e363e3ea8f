// What a refusal means for the person who asked, and what that person can do.

import { Failure } from "./api";

const WORDS: Record<string, string> = {
  "23505": "This serial number is taken. Every widget needs one of its own; case counts.",
  "22P02": "A value is of the wrong kind. Port types are P, R and Q, in capitals.",
  "23502": "A required value is missing.",
  WG001: "There is no such widget. Serial numbers are compared letter by letter; case counts.",
  WG002: "All slots of this port type are in use, or there are none. Remove an association first, or choose another widget.",
  WG003: "The two are associated over this port type already. Two widgets can be associated once for each port type.",
  WG004: "The two are not associated over this port type, so there is nothing to remove.",
  WG005: "A widget cannot be associated with itself. Name two different widgets.",
  WG006: "A widget has three slots at most.",
  WG007: "A text is empty, too long, or holds a NUL character.",
  WG010: "Lists can be ordered by the serial number only.",
  WG011: "The rows are longer together than an answer may be. Ask for fewer at a time, by limit.",
  WG410: "Some changes are no longer kept, or the store was restored: what follows begins with the oldest one that is kept.",
  WG429: "Too many requests from this address. Wait a moment.",
  WG501: "This store keeps no changes, so there is nothing to show here.",
  WG503: "The service is busy just now. Nothing was changed; try again in a moment.",
  WG504: "The service accepts no operations at present. Nothing was changed. Whoever runs it finds the reason in its log.",
  WG409: "The same operation is still under way. Wait a moment, and try again.",
  WG505: "The operation may or may not have been applied. Trying again is safe here: it is applied once.",
  WG507: "This is a standby, which shows everything and changes nothing. Do it at the primary, whose address the answer names.",
  WG506: "The service cannot check tokens yet: the keys for them have not arrived. Try again in a moment.",
  "57014": "The search took too long. Narrow it: by the beginning of the serial number, or by a free port.",
  "42501": "Your role does not allow this. Enter a token of another role at the top.",
  "42703": "There is no such column. The columns are serial_number, name and slots.",
  PGRST100: "The filter cannot be read. It is COLUMN=OPERATOR.VALUE, as in name=like.*pump*.",
  PGRST116: "There is no such widget.",
  "22023": "The role of this token is none that the service knows. Enter another token at the top.",
  PGRST300: "The service asks for no token, and cannot check yours. Forget it at the top.",
  PGRST301: "The token is not accepted. Enter another one.",
  PGRST302: "The service asks for a token.",
  PGRST303: "The token is not valid now: it may have expired. Enter another one.",
};

/** Explains a failure in words, or returns null if the service's own message is enough. */
export function explain(failure: unknown): string | null {
  if (!(failure instanceof Failure)) return null;
  return WORDS[failure.code] ?? null;
}

export const messageOf = (failure: unknown): string => (failure instanceof Error ? failure.message : String(failure));
