import assert from "node:assert/strict";
import { gunzipSync } from "fflate";
import { splatFile } from "../../lib/io/splat_file.ts";
import { glbBytes } from "../../lib/mesh/glb.ts";
import { curvesHtml, viewerHtml } from "../../lib/mesh/viewer.ts";
import { ballMesh } from "./fields.ts";

const HOSTILE = `</script><script>alert("1")</script><img src=x onerror='alert(2)'>&`;
/** The name of a namespace, which nothing loads. */
const NAMESPACE = "http://www.w3.org/1999/xhtml";

function expectOffline(html: string): void {
  assert.doesNotMatch(html.replaceAll(NAMESPACE, ""), /https?:\/\//);
  assert.doesNotMatch(html, /<link|<iframe|@import|src="(?!data:)/);
  assert.match(html, /Content-Security-Policy" content="default-src 'none'/);
}

function scriptsOf(html: string): string[] {
  return [...html.matchAll(/<script[^>]*>([\s\S]*?)<\/script>/g)].map((match) => match[1]);
}

Deno.test("viewerHtml() is whole, offline and safe from what is put into it", async () => {
  const glb = await glbBytes(ballMesh(8, 0.4)), picture = Uint8Array.of(0x89, 0x50, 0x4e, 0x47);
  const voxels = { coords: Int32Array.of(0, 1, 2, 3, 300, 5), resolution: 512 };
  const html = viewerHtml({ glb, title: HOSTILE, picture, voxels, info: { [HOSTILE]: HOSTILE } });
  expectOffline(html);
  assert.ok(!html.includes("<img src=x") && !html.includes('alert("1")'));
  assert.match(html, /<title>&lt;\/script&gt;/);
  const [mesh, packed, code, ...more] = scriptsOf(html);
  assert.deepEqual(Uint8Array.fromBase64(mesh), glb);
  assert.deepEqual([...new Uint16Array(Uint8Array.fromBase64(packed).buffer)], [0, 1, 2, 3, 300, 5]);
  assert.ok(new Function(code) instanceof Function);
  assert.equal(more.length, 0);
  assert.match(html, /src="data:image\/png;base64,iVBORw=="/);
});

Deno.test("viewerHtml() with Gaussians carries them packed, and the code that draws them", async () => {
  const glb = await glbBytes(ballMesh(8, 0.4));
  const splats = {
    ...{ positions: Float32Array.of(0.1, 0.2, 0.3), colors: Float32Array.of(0, 0, 0), opacities: Float32Array.of(0.5) },
    ...{ scales: Float32Array.of(0.1, 0.1, 0.1), rotations: Float32Array.of(1, 0, 0, 0) },
  };
  const html = viewerHtml({ glb, title: HOSTILE, splats }), [, packed, code, ...more] = scriptsOf(html);
  assert.deepEqual(gunzipSync(Uint8Array.fromBase64(packed)), splatFile(splats));
  assert.ok(new Function(code) instanceof Function);
  assert.equal(more.length, 0);
  assert.match(html, /default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; .*worker-src blob:/);
  assert.doesNotMatch(html, /<link|<iframe|@import|src="(?!data:)/);
});

Deno.test("viewerHtml() takes a mesh alone and refuses voxels out of range", () => {
  const html = viewerHtml({ glb: Uint8Array.of(1), title: "t" });
  assert.doesNotMatch(html, /id="picture"|id="voxels"/);
  const voxels = { coords: Int32Array.of(0, 0, 8), resolution: 8 };
  assert.throws(() => viewerHtml({ glb: Uint8Array.of(1), title: "t", voxels }), /a coordinate is 8, it must be of 0 to 7/);
  assert.throws(() => viewerHtml({ glb: Uint8Array.of(1), title: "t", voxels: { ...voxels, resolution: 0 } }), /resolution is 0/);
});

Deno.test("curvesHtml() is whole, offline, safe, and keeps gaps", () => {
  const html = curvesHtml({ [HOSTILE]: { step: [1, 2, 3], value: [0.5, NaN, 0.25] } }, { title: HOSTILE });
  expectOffline(html);
  const [data, code, ...more] = scriptsOf(html);
  assert.deepEqual(JSON.parse(data), [{ name: HOSTILE, step: [1, 2, 3], value: [0.5, null, 0.25] }]);
  assert.ok(new Function(code) instanceof Function);
  assert.equal(more.length, 0);
  assert.throws(() => curvesHtml({ loss: { step: [1], value: [] } }), /Cannot plot loss: it has 0 values/);
});
