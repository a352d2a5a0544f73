/** The sRGB curve. */

/** A channel of an sRGB colour (0 to 1) as linear light (IEC 61966-2-1): c / 12.92 up to 0.04045, ((c + 0.055) / 1.055)^2.4 beyond. */
export function srgbToLinear(c: number): number {
  return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}

/** Linear light (0 to 1) as a channel of an sRGB colour: the inverse of {@linkcode srgbToLinear}. */
export function linearToSrgb(light: number): number {
  return light <= 0.0031308 ? light * 12.92 : 1.055 * light ** (1 / 2.4) - 0.055;
}
