/** The viewer's room: renderer, light, floor, camera. Runs in a browser. */
/// <reference lib="dom" />
import {
  Box3,
  DirectionalLight,
  type Group,
  Mesh,
  PCFShadowMap,
  PerspectiveCamera,
  PlaneGeometry,
  PMREMGenerator,
  Scene,
  ShadowMaterial,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { RoomEnvironment } from "three/examples/jsm/environments/RoomEnvironment.js";

/** What is needed to draw a frame. */
export interface Stage {
  renderer: WebGLRenderer;
  scene: Scene;
  camera: PerspectiveCamera;
  controls: OrbitControls;
  sun: DirectionalLight;
  floor: Mesh;
}

const FIELD_OF_VIEW = 35, START_DIRECTION = [0.75, 0.5, 1];

/** A lit room with a floor that takes shadows, drawn on `canvas`. Throws where the browser has no WebGL. */
export function makeStage(canvas: HTMLCanvasElement): Stage {
  const renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true, preserveDrawingBuffer: true });
  renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
  renderer.shadowMap.enabled = true;
  renderer.shadowMap.type = PCFShadowMap;
  const scene = new Scene(), camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 100);
  scene.environment = new PMREMGenerator(renderer).fromScene(new RoomEnvironment(), 0.04).texture;
  scene.environmentIntensity = 0.45;
  const sun = new DirectionalLight(0xffffff, 1.3);
  sun.castShadow = true;
  sun.shadow.mapSize.set(2048, 2048);
  sun.shadow.normalBias = 0.004;
  sun.shadow.radius = 3;
  const floor = new Mesh(new PlaneGeometry(), new ShadowMaterial({ opacity: 0.2 }));
  floor.rotation.x = -Math.PI / 2;
  floor.receiveShadow = true;
  scene.add(sun, sun.target, floor);
  return { renderer, scene, camera, controls: new OrbitControls(camera, canvas), sun, floor };
}

/** Puts camera, light and floor where they suit `shown`. */
export function frameStage({ camera, controls, sun, floor }: Stage, shown: Group): void {
  const box = new Box3().setFromObject(shown), center = box.getCenter(new Vector3()), radius = box.getSize(new Vector3()).length() / 2 || 1;
  const distance = 1.1 * radius / Math.sin(FIELD_OF_VIEW / 2 * Math.PI / 180) / Math.min(1, camera.aspect);
  camera.position.set(...START_DIRECTION).setLength(distance).add(center);
  camera.near = distance / 100;
  camera.far = distance * 10;
  camera.updateProjectionMatrix();
  controls.target.copy(center);
  sun.position.set(0.5, 1.6, 0.9).setLength(3 * radius).add(center);
  sun.target.position.copy(center);
  Object.assign(sun.shadow.camera, { left: -1.5 * radius, right: 1.5 * radius, top: 1.5 * radius, bottom: -1.5 * radius, far: 6 * radius });
  sun.shadow.camera.updateProjectionMatrix();
  floor.position.set(center.x, box.min.y - 0.002 * radius, center.z);
  floor.scale.setScalar(8 * radius);
}

/** Fits the picture to the canvas's size on the page. */
export function resizeStage({ renderer, camera }: Stage): void {
  const { clientWidth, clientHeight } = renderer.domElement;
  renderer.setSize(clientWidth, clientHeight, false);
  camera.aspect = clientWidth / Math.max(clientHeight, 1);
  camera.updateProjectionMatrix();
}
