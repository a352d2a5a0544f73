/** The page of viewerHtml: shows the mesh, the Gaussians, the voxels and the facts that stand in it. Runs in a browser, from a bundle. */
/// <reference lib="dom" />
import {
  Box3,
  BoxGeometry,
  Color,
  Group,
  InstancedMesh,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  MeshStandardMaterial,
  type Object3D,
  Vector3,
  type WebGLRenderer,
} from "three";
import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
import { frameStage, makeStage, resizeStage } from "./stage.ts";

interface Model {
  solid: Group;
  wires: Group;
  meshes: Mesh[];
  voxels?: InstancedMesh;
}

const CLAY = 0xc8c2b8, WIRE = 0x10202c;
/** Part of a voxel's side that its box fills. */
const VOXEL_FILL = 0.92;
/** Keeps a surface behind the lines drawn on it. */
const BEHIND = { polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 };

/** Makes what shows the Gaussians of the page, drawn by `renderer`. */
export type LoadSplats = (file: Uint8Array<ArrayBuffer>, renderer: WebGLRenderer) => Promise<Object3D>;

function byId(id: string): HTMLElement {
  return document.getElementById(id)!;
}

function payload(id: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(byId(id).textContent!.trim()), (c) => c.charCodeAt(0));
}

/** A payload that was packed by gzip. */
async function unzipped(id: string): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([payload(id)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loadModel(): Promise<Model> {
  const gltf = await new GLTFLoader().parseAsync(payload("glb").buffer, "");
  const meshes: Mesh[] = [],
    wires = new Group(),
    wire = new MeshBasicMaterial({ color: WIRE, wireframe: true, transparent: true, opacity: 0.4 });
  gltf.scene.updateMatrixWorld(true);
  gltf.scene.traverse((part: Mesh) => {
    if (!part.isMesh) return;
    part.castShadow = part.receiveShadow = true;
    Object.assign(part.material, BEHIND);
    meshes.push(part);
    const lines = new Mesh(part.geometry, wire);
    lines.applyMatrix4(part.matrixWorld);
    wires.add(lines);
  });
  return { solid: gltf.scene, wires, meshes, voxels: document.getElementById("voxels") ? voxelBoxes() : undefined };
}

/** Boxes at the voxels' places in the unit cube, coloured by height; the page has Y up. */
function voxelBoxes(): InstancedMesh {
  const xyz = new Uint16Array(payload("voxels").buffer), resolution = Number(byId("voxels").dataset.resolution);
  const side = VOXEL_FILL / resolution, material = new MeshStandardMaterial({ roughness: 0.8 });
  const boxes = new InstancedMesh(new BoxGeometry(side, side, side), material, xyz.length / 3);
  const place = new Matrix4(), color = new Color();
  for (let i = 0; i < boxes.count; i++) {
    const [x, y, z] = [0, 1, 2].map((k) => (xyz[3 * i + k] + 0.5) / resolution - 0.5);
    boxes.setMatrixAt(i, place.makeTranslation(x, z, -y));
    boxes.setColorAt(i, color.setHSL(0.6 - 0.5 * (z + 0.5), 0.5, 0.36));
  }
  boxes.castShadow = boxes.receiveShadow = true;
  return boxes;
}

function showFacts({ solid, meshes, voxels }: Model): void {
  let vertices = 0, triangles = 0;
  for (const { geometry } of meshes) {
    vertices += geometry.attributes.position.count;
    triangles += geometry.index.count / 3;
  }
  const size = new Box3().setFromObject(solid).getSize(new Vector3());
  addFact("vertices", vertices.toLocaleString("en"));
  addFact("triangles", triangles.toLocaleString("en"));
  addFact("size", [size.x, size.z, size.y].map((s) => s.toFixed(3)).join(" × "));
  if (voxels) addFact("voxels", voxels.count.toLocaleString("en"));
}

function addFact(name: string, value: string): void {
  const row = document.createElement("tr");
  for (const text of [name, value]) row.append(Object.assign(document.createElement("td"), { textContent: text }));
  byId("facts").append(row);
}

function addButton(label: string, key: string, press: () => boolean | undefined): void {
  const button = Object.assign(document.createElement("button"), { textContent: label, title: `key: ${key === " " ? "space" : key}` });
  button.addEventListener("click", () => {
    const on = press();
    if (on !== undefined) button.setAttribute("aria-pressed", String(on));
    button.blur();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== key || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    button.click();
  });
  byId("buttons").append(button);
}

async function show(loadSplats?: LoadSplats): Promise<void> {
  const stage = makeStage(byId("canvas") as HTMLCanvasElement), { renderer, scene, camera, controls } = stage;
  const model = await loadModel(), { solid, wires, meshes, voxels } = model;
  const splats = loadSplats && document.getElementById("splats") ? await loadSplats(await unzipped("splats"), renderer) : undefined;
  const own = meshes.map((mesh) => mesh.material), clay = new MeshStandardMaterial({ color: CLAY, roughness: 0.9, ...BEHIND });
  const hasColors = meshes.some((mesh) => mesh.geometry.attributes.color || mesh.material.map);
  const state = { wireframe: false, flat: false, colors: hasColors, splats: false, voxels: false, spin: false };
  const shown = new Group().add(solid, wires, ...(voxels ? [voxels] : []));
  let stale = true;

  const apply = (): void => {
    const showVoxels = state.voxels && voxels !== undefined, showSplats = state.splats && splats !== undefined && !showVoxels;
    solid.visible = !showVoxels && !showSplats;
    wires.visible = state.wireframe && !showVoxels;
    if (splats) splats.visible = showSplats;
    if (voxels) voxels.visible = showVoxels;
    meshes.forEach((mesh, i) => {
      mesh.material = state.colors ? own[i] : clay;
      if (mesh.material.flatShading === state.flat) return;
      mesh.material.flatShading = state.flat;
      mesh.material.needsUpdate = true;
    });
    controls.autoRotate = state.spin;
    stale = true;
  };
  const toggle = (name: keyof typeof state) => (): boolean => {
    state[name] = !state[name];
    apply();
    return state[name];
  };

  scene.add(shown);
  if (splats) scene.add(splats);
  showFacts(model);
  addButton("Wireframe", "w", toggle("wireframe"));
  addButton("Flat", "f", toggle("flat"));
  if (hasColors) addButton("Clay", "c", () => !toggle("colors")());
  if (splats) addButton("Splats", "s", toggle("splats"));
  if (voxels) addButton("Voxels", "v", toggle("voxels"));
  addButton("Spin", " ", toggle("spin"));
  addButton("Reset view", "r", () => {
    frameStage(stage, shown);
    stale = true;
    return undefined;
  });
  resizeStage(stage);
  frameStage(stage, shown);
  new ResizeObserver(() => {
    resizeStage(stage);
    renderer.render(scene, camera);
  }).observe(renderer.domElement);
  apply();
  for (const key of location.hash.slice(1)) dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
  renderer.setAnimationLoop(() => {
    if (!controls.update() && !stale) return;
    stale = state.splats && splats !== undefined; // they are sorted beside the drawing, frame after frame
    renderer.render(scene, camera);
    document.body.dataset.state = "ready";
  });
}

/** Shows the page; `loadSplats` for one with Gaussians. */
export function start(loadSplats?: LoadSplats): void {
  show(loadSplats).catch((cause) => {
    document.body.dataset.state = "failed";
    byId("message").textContent = `Cannot show the mesh: ${cause instanceof Error ? cause.message : cause}`;
  });
}
