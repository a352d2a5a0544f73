import { dirname, isAbsolute, relative, resolve } from "node:path";

/** What an asset may cost; an asset beyond it is refused before the memory is taken. */
export interface ImportLimits {
  /** Bytes of any one file of the asset. */
  fileBytes: number;
  /** Vertices of the whole asset, instances counted. */
  vertices: number;
  /** Triangles of the whole asset, instances counted. */
  triangles: number;
  /** Pixels of any one texture. */
  texturePixels: number;
}

/** Limits that every asset of the usual collections stays far below. */
export const DEFAULT_IMPORT_LIMITS: ImportLimits = { fileBytes: 2 ** 30, vertices: 20e6, triangles: 20e6, texturePixels: 2 ** 26 };

/** Reads the files of one asset, and nothing outside the folder that holds it. */
export interface AssetFolder {
  /** Path of the asset itself. */
  path: string;
  limits: ImportLimits;
  /** Bytes of the asset itself. */
  readMain(): Promise<Uint8Array<ArrayBuffer>>;
  /** Bytes of a file named by a relative URI (percent-encoded, as glTF has them), or of a base64 `data:` URI. */
  readUri(uri: string): Promise<Uint8Array<ArrayBuffer>>;
  /** Bytes of a file named by a plain relative path (as OBJ and MTL have them; `\` counts as `/`). */
  readRelative(path: string): Promise<Uint8Array<ArrayBuffer>>;
}

async function readBounded(path: string, what: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  let info;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new Error(`${what} is missing, it must be a file next to the asset`);
    throw new Error(`${what} cannot be read: ${(error as Error).message}`);
  }
  if (!info.isFile) throw new Error(`${what} is not a regular file`);
  if (info.size > limit) throw new Error(`${what} has ${info.size} bytes, it must have at most ${limit}`);
  return await Deno.readFile(path);
}

function decodeDataUri(uri: string): Uint8Array<ArrayBuffer> {
  const comma = uri.indexOf(",");
  if (comma < 0 || !/;base64$/i.test(uri.slice(0, comma))) throw new Error("a data: URI is not base64, it must be");
  try {
    return Uint8Array.fromBase64(uri.slice(comma + 1));
  } catch {
    throw new Error("a data: URI is not valid base64");
  }
}

function expectInside(path: string, named: string): void {
  if (path.includes("\0")) throw new Error(`the file name "${named}" has a zero byte in it, it must be a relative file name`);
  if (isAbsolute(path) || /^[a-zA-Z]:/.test(path)) throw new Error(`the path "${named}" is absolute, it must be relative to the asset`);
  const inside = relative(".", resolve(".", path));
  if (inside === "" || inside === ".." || inside.startsWith("../")) {
    throw new Error(`the path "${named}" leads out of the asset's folder, it must stay inside`);
  }
}

/** Opens the folder around the asset at `path`. The reads throw an Error for whatever leads out of it (absolute, `..`, a scheme, a link). */
export function openAssetFolder(path: string, limits: ImportLimits = DEFAULT_IMPORT_LIMITS): AssetFolder {
  const folder = dirname(resolve(path));

  async function readRelative(named: string): Promise<Uint8Array<ArrayBuffer>> {
    const plain = named.replaceAll("\\", "/");
    expectInside(plain, named);
    const target = resolve(folder, plain);
    let real, realFolder;
    try {
      [real, realFolder] = [await Deno.realPath(target), await Deno.realPath(folder)];
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) throw new Error(`the file "${named}" is missing, it must be a file next to the asset`);
      throw new Error(`the file "${named}" cannot be read: ${(error as Error).message}`);
    }
    const inside = relative(realFolder, real);
    if (inside === ".." || inside.startsWith("../") || isAbsolute(inside)) {
      throw new Error(`the file "${named}" is a link that leads out of the asset's folder, it must stay inside`);
    }
    return await readBounded(real, `the file "${named}"`, limits.fileBytes);
  }

  return {
    path,
    limits,
    readMain: () => readBounded(path, "the file", limits.fileBytes),
    readRelative,
    readUri: async (uri) => {
      if (/^data:/i.test(uri)) return decodeDataUri(uri);
      const scheme = /^[a-zA-Z][a-zA-Z0-9+.-]*:/.exec(uri)?.[0];
      if (scheme || uri.startsWith("//")) {
        throw new Error(`the URI "${uri.slice(0, 80)}" is not relative, it must name a file next to the asset`);
      }
      let decoded;
      try {
        decoded = decodeURIComponent(uri);
      } catch {
        decoded = uri;
      }
      return await readRelative(decoded);
    },
  };
}
