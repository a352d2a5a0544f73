/** The sRGB curve. */

/** A channel of an sRGB colour (0 to 1) as linear light (IEC 61966-2-1): c / 12.92 up to 0.04045, ((c + 0.055) / 1.055)^2.4 beyond. */
export function srgbToLinear(c: number): number {
  return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}
