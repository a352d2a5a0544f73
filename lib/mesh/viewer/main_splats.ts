/** The page with a mesh and Gaussians. Runs in a browser, from a bundle. */
/// <reference lib="dom" />
import { SparkRenderer, SplatFileType, SplatMesh } from "@sparkjsdev/spark";
import { Group } from "three";
import { start } from "./view.ts";

start(async (fileBytes, renderer) => {
  const splats = new SplatMesh({ fileBytes, fileType: SplatFileType.SPLAT }), group = new Group();
  await splats.initialized;
  group.rotation.x = -Math.PI / 2; // the world has Z up, the page has Y up
  return group.add(new SparkRenderer({ renderer }), splats);
});
