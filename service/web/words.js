// Numbers and sizes in words.

const count = new Intl.NumberFormat("en");
const megapixels = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function readableBytes(bytes) {
  const [unit, divisor] = bytes < 1000 ? ["byte", 1] : bytes < 999_500 ? ["kilobyte", 1e3] : ["megabyte", 1e6];
  return new Intl.NumberFormat("en", { style: "unit", unit, maximumSignificantDigits: 3 }).format(bytes / divisor);
}

/** The change from `before` to `after` in percent, cut and not rounded: a rendition of 0.3 % must not read as −100 %. */
export function percentChange(after, before) {
  const percent = (after / before - 1) * 100;
  return percent < -99 ? Math.trunc(percent * 10) / 10 : Math.trunc(percent);
}

export function signedPercent(percent) {
  return `${percent < 0 ? "−" : percent > 0 ? "+" : ""}${count.format(Math.abs(percent))}%`;
}

export function smaller(after, before, thing) {
  const percent = percentChange(after, before);
  if (percent === 0) return `as large as ${thing}`;
  return `${count.format(Math.abs(percent))}% ${percent < 0 ? "smaller" : "larger"} than ${thing}`;
}

export function readableTime(milliseconds) {
  return milliseconds < 1000 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

export const counted = (number) => count.format(number);
export const formatName = (type) => type.replace("image/", "").toUpperCase().replace("WEBP", "WebP");
export const dimensions = ({ width, height }) => `${count.format(width)} × ${count.format(height)}`;
export const pixels = ({ width, height }) => `${megapixels.format((width * height) / 1e6)} MP`;

/** `max_bytes` as a label: "Max bytes". */
export const labelOf = (key) => (key.charAt(0).toUpperCase() + key.slice(1)).replaceAll("_", " ");
