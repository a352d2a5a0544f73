import assert from "node:assert/strict";
import { isObject, parseJsonObject } from "../../lib/io/json.ts";
import { latin1 } from "./corrupt.ts";

/** Parses a text. */
function parse(text: string): Record<string, unknown> {
  return parseJsonObject(new TextEncoder().encode(text));
}

Deno.test("parseJsonObject() reads an object", () => {
  assert.deepEqual(parse(' {"a": [1, {"b": "a:b"}], "b": {"a": null, "\\u0063": "\\""} } '), {
    a: [1, { b: "a:b" }],
    b: { a: null, c: '"' },
  });
  assert.deepEqual(parse("{}"), {});
});

Deno.test("parseJsonObject() refuses a key that is given twice, wherever and however it is written", () => {
  for (const text of ['{"a":1,"a":1}', '{"x":{"a":1,"b":[{}],"a":2}}', '[{"a" : 1, "\\u0061" : 2}]', '{"":0,"":0}']) {
    assert.throws(() => parse(text), /the key ".*" is given twice/);
  }
});

Deno.test("parseJsonObject() refuses what is no JSON object", () => {
  for (const text of ["", "{", '{"a', '{"a\\', '{"a":1}}', "{'a':1}", "nonsense", '{"a":"\n"}', '{"\\x":1}']) {
    assert.throws(() => parse(text), /it is not JSON \(/, text);
  }
  for (const text of ["[]", "null", "1", '"a"']) assert.throws(() => parse(text), /it is not a JSON object/);
  assert.throws(() => parseJsonObject(latin1('{"\xff":1}')), /not UTF-8/);
  assert.throws(() => parse("[".repeat(1e6)), /nested deeper than 64/);
  assert.throws(() => parse('{"a":'.repeat(1e5)), /nested deeper than 64/);
});

Deno.test("isObject() is for objects with keys", () => {
  assert.deepEqual([{}, [], null, 1, "a"].map(isObject), [true, false, false, false, false]);
});
