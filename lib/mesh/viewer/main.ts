/** The page with a mesh. Runs in a browser, from a bundle. */
import { start } from "./view.ts";

start();
