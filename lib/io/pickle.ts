/**
 * Reading pickles without running anything: a machine for the opcodes that dictionaries, lists, numbers and strings need, in which a name of the
 * outside world means one of the functions it is given, or is refused. Protocols 2 to 5.
 */
import { quote } from "./read.ts";

/** A value of a pickle: dictionaries are Maps, tuples and lists arrays, integers beyond 2^53 bigints. */
export type PickleValue = unknown;

/** What a pickle may call, and how it names things that lie outside of it. */
export interface PickleWorld {
  /** Functions by "module.name". A name that is not here is refused. */
  functions: Record<string, (...args: PickleValue[]) => PickleValue>;
  /** What a persistent id stands for. */
  persistent(id: PickleValue): PickleValue;
}

/** Most bytes of a pickle: one of a million tensors is smaller. */
const MAX_BYTES = 2 ** 28;

class Mark {}
const MARK = new Mark();

/** A name of the outside world that may be called. */
class Callable {
  constructor(readonly name: string, readonly call: (...args: PickleValue[]) => PickleValue) {}
}

/** The value of a pickle. Throws an `Error` that says what is not allowed or damaged; messages begin with `name`, what the file is called. */
export function readPickle(bytes: Uint8Array, name: string, world: PickleWorld): PickleValue {
  const fault = (what: string): Error => new Error(`Cannot read ${name}: ${what}`);
  if (bytes.length > MAX_BYTES) throw fault(`its pickle has ${bytes.length} bytes, it must have at most ${MAX_BYTES}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), text = new TextDecoder("utf-8", { fatal: true });
  const stack: unknown[] = [], memo = new Map<number, unknown>();
  let at = 0;
  const take = (count: number): number => {
    if (count > bytes.length - at) throw fault("its pickle is cut off");
    at += count;
    return at - count;
  };
  const string = (length: number): string => {
    const from = take(length);
    try {
      return text.decode(bytes.subarray(from, from + length));
    } catch {
      throw fault("a text of its pickle is not UTF-8");
    }
  };
  const line = (): string => {
    const end = bytes.indexOf(10, at);
    if (end < 0) throw fault("its pickle is cut off");
    const value = string(end - at);
    at++;
    return value;
  };
  const long = (from: number, length: number): number | bigint => {
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[from + i]);
    if (length && bytes[from + length - 1] & 128) value -= 1n << BigInt(8 * length);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  };
  const wide = (from: number): number => {
    const value = view.getBigUint64(from, true);
    if (value > bytes.length) throw fault("its pickle is cut off");
    return Number(value);
  };
  const pop = (): unknown => {
    if (!stack.length || stack.at(-1) === MARK) throw fault("its pickle takes from an empty stack");
    return stack.pop();
  };
  const toMark = (): unknown[] => {
    const from = stack.lastIndexOf(MARK);
    if (from < 0) throw fault("its pickle has no mark where one must be");
    return stack.splice(from).slice(1);
  };
  const top = (): unknown => {
    if (!stack.length || stack.at(-1) === MARK) throw fault("its pickle takes from an empty stack");
    return stack.at(-1);
  };
  const recall = (key: number): void => {
    if (!memo.has(key)) throw fault(`its pickle recalls value ${key}, which it has not kept`);
    stack.push(memo.get(key));
  };
  const lookUp = (module: string, member: string): void => {
    const full = `${module}.${member}`;
    if (!Object.hasOwn(world.functions, full)) {
      throw fault(`it holds ${quote(full)}, which could run code: only tensors, numbers, texts, lists and dictionaries are read`);
    }
    stack.push(new Callable(full, world.functions[full]));
  };
  const setItems = (pairs: unknown[]): void => {
    const target = top();
    if (!(target instanceof Map) || pairs.length % 2) throw fault("its pickle sets items of what is no dictionary");
    for (let i = 0; i < pairs.length; i += 2) target.set(pairs[i], pairs[i + 1]);
  };
  const append = (values: unknown[]): void => {
    const target = top();
    if (!Array.isArray(target)) throw fault("its pickle appends to what is no list");
    for (const value of values) target.push(value);
  };
  const popMany = (count: number): unknown[] => {
    const values = Array.from({ length: count }, pop);
    return values.reverse();
  };

  for (;;) {
    const code = bytes[take(1)];
    switch (code) {
      case 0x80: { // PROTO
        const version = bytes[take(1)];
        if (version < 2 || version > 5) throw fault(`its pickle has protocol ${version}, it must be 2 to 5`);
        break;
      }
      case 0x95: // FRAME
        take(8);
        break;
      case 0x28: // MARK
        stack.push(MARK);
        break;
      case 0x2e: { // STOP
        const value = pop();
        if (stack.length) throw fault("its pickle leaves values over");
        return value;
      }
      case 0x30: // POP
        pop();
        break;
      case 0x4e: // NONE
        stack.push(null);
        break;
      case 0x88: // NEWTRUE
      case 0x89: // NEWFALSE
        stack.push(code === 0x88);
        break;
      case 0x4b: // BININT1
        stack.push(bytes[take(1)]);
        break;
      case 0x4d: // BININT2
        stack.push(view.getUint16(take(2), true));
        break;
      case 0x4a: // BININT
        stack.push(view.getInt32(take(4), true));
        break;
      case 0x8a: { // LONG1
        const length = bytes[take(1)];
        stack.push(long(take(length), length));
        break;
      }
      case 0x47: // BINFLOAT
        stack.push(view.getFloat64(take(8), false));
        break;
      case 0x58: // BINUNICODE
        stack.push(string(view.getUint32(take(4), true)));
        break;
      case 0x8c: // SHORT_BINUNICODE
      case 0x55: // SHORT_BINSTRING
        stack.push(string(bytes[take(1)]));
        break;
      case 0x8d: // BINUNICODE8
        stack.push(string(wide(take(8))));
        break;
      case 0x7d: // EMPTY_DICT
        stack.push(new Map());
        break;
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
        stack.push([]);
        break;
      case 0x74: // TUPLE
      case 0x6c: // LIST
        stack.push(toMark());
        break;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        stack.push(popMany(code - 0x84));
        break;
      case 0x73: // SETITEM
        setItems(popMany(2));
        break;
      case 0x75: // SETITEMS
        setItems(toMark());
        break;
      case 0x61: // APPEND
        append(popMany(1));
        break;
      case 0x65: // APPENDS
        append(toMark());
        break;
      case 0x71: // BINPUT
        memo.set(bytes[take(1)], top());
        break;
      case 0x72: // LONG_BINPUT
        memo.set(view.getUint32(take(4), true), top());
        break;
      case 0x94: // MEMOIZE
        memo.set(memo.size, top());
        break;
      case 0x68: // BINGET
        recall(bytes[take(1)]);
        break;
      case 0x6a: // LONG_BINGET
        recall(view.getUint32(take(4), true));
        break;
      case 0x63: { // GLOBAL
        const module = line();
        lookUp(module, line());
        break;
      }
      case 0x93: { // STACK_GLOBAL
        const [module, member] = popMany(2);
        if (typeof module !== "string" || typeof member !== "string") throw fault("its pickle names something by what is no text");
        lookUp(module, member);
        break;
      }
      case 0x51: // BINPERSID
        stack.push(world.persistent(pop()));
        break;
      case 0x52: { // REDUCE
        const [callable, args] = popMany(2);
        if (!(callable instanceof Callable) || !Array.isArray(args)) throw fault("its pickle calls what is no function");
        stack.push(callable.call(...args.slice(0, 16)));
        break;
      }
      case 0x62: { // BUILD: attributes of a dictionary, such as a state_dict's versions, tell nothing
        pop();
        if (!(top() instanceof Map)) throw fault("its pickle sets attributes of what is no dictionary");
        break;
      }
      default:
        throw fault(`its pickle has opcode 0x${code.toString(16)}, which files of tensors do not need`);
    }
  }
}

/** Whether a value is a name that may be called: where a value is expected, it is none. */
export function calledName(value: PickleValue): string | null {
  return value instanceof Callable ? value.name : null;
}
