/** JSON from outside: what `JSON.parse` lets pass, an equal key twice or a million brackets deep, is refused here. */
import { quote } from "./read.ts";

const MAX_DEPTH = 64;

/** The object that `bytes` hold. Throws an `Error` that says what is wrong: not UTF-8, not JSON, no object, too deep, a key given twice. */
export function parseJsonObject(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    checkKeys(text);
    value = JSON.parse(text);
  } catch (cause) {
    if (cause instanceof SyntaxError) throw new Error(`it is not JSON (${cause.message.slice(0, 200)})`, { cause });
    if (cause instanceof TypeError) throw new Error("it is not JSON (the text is not UTF-8)", { cause });
    throw cause;
  }
  if (!isObject(value)) throw new Error("it is not a JSON object");
  return value;
}

/** Whether `value` is an object with keys: not null, not an array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Walks over a text that should be JSON; where it is not, `JSON.parse` says so later. */
function checkKeys(text: string): void {
  const open: (Set<string> | null)[] = []; // the keys seen in each open object; null for an array
  for (let at = 0; at < text.length; at++) {
    const it = text[at];
    if (it === "{" || it === "[") {
      open.push(it === "{" ? new Set() : null);
      if (open.length > MAX_DEPTH) throw new Error(`it is nested deeper than ${MAX_DEPTH}`);
    } else if (it === "}" || it === "]") open.pop();
    else if (it === '"') {
      const end = stringEnd(text, at);
      const keys = open.at(-1);
      if (keys && isKey(text, end)) {
        const key = JSON.parse(text.slice(at, end)) as string;
        if (keys.has(key)) throw new Error(`the key ${quote(key)} is given twice`);
        keys.add(key);
      }
      at = end - 1;
    }
  }
}

/** The position behind the string that begins at `start`. */
function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

function isKey(text: string, after: number): boolean {
  while (" \t\n\r".includes(text[after])) after++;
  return text[after] === ":";
}
