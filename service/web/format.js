// Numbers, sizes and names as people read them.

const integers = new Intl.NumberFormat("en");
const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** Labels of options whose names do not read well as they are. */
const LABELS = {
  dpr: "Device pixel ratio",
  focal: "Focal point",
  max_bytes: "Maximum bytes",
  ratio: "Aspect ratio",
};

/** @param {number} bytes */
export function readableBytes(bytes) {
  const [unit, divisor] = bytes < 1000 ? ["byte", 1] : bytes < 999_500 ? ["kilobyte", 1e3] : ["megabyte", 1e6];
  const format = new Intl.NumberFormat("en", {
    style: "unit",
    unit: String(unit),
    // In its short form, the unit has no plural: "873 byte".
    unitDisplay: unit === "byte" ? "long" : "short",
    maximumSignificantDigits: 3,
  });
  return format.format(bytes / Number(divisor));
}

/**
 * The change from `before` to `after` in percent, truncated and not rounded: 0.3 % of the original must not read as −100 %.
 * @param {number} after
 * @param {number} before
 */
export function percentChange(after, before) {
  const percent = (after / before - 1) * 100;
  return percent < -99 ? Math.trunc(percent * 10) / 10 : Math.trunc(percent);
}

/** @param {number} percent */
export function signedPercent(percent) {
  return `${percent < 0 ? "−" : percent > 0 ? "+" : ""}${integers.format(Math.abs(percent))}%`;
}

/**
 * "45% smaller than the original".
 * @param {number} after
 * @param {number} before
 * @param {string} reference
 */
export function sizeComparison(after, before, reference) {
  const percent = percentChange(after, before);
  if (percent === 0) return `as large as ${reference}`;
  return `${integers.format(Math.abs(percent))}% ${percent < 0 ? "smaller" : "larger"} than ${reference}`;
}

/** @param {number} milliseconds */
export function readableTime(milliseconds) {
  return milliseconds < 1000 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** @param {number} number */
export const readableInteger = (number) => integers.format(number);

/** The names of formats that are not written in capitals only. @type {Record<string, string>} */
const FORMAT_NAMES = { jxl: "JPEG XL", webp: "WebP" };

/** @param {string} type A media type or the name of a format. */
export function formatName(type) {
  const format = type.replace("image/", "");
  return FORMAT_NAMES[format] ?? format.toUpperCase();
}

/** @param {{width: number, height: number}} size */
export const dimensions = ({ width, height }) => `${integers.format(width)} × ${integers.format(height)}`;

/** @param {{width: number, height: number}} size */
export const megapixels = ({ width, height }) => `${threeDigits.format((width * height) / 1e6)} MP`;

/**
 * The label of an option: "Maximum bytes" for `max_bytes`.
 * @param {string} key
 * @returns {string}
 */
export const labelOf = (key) => LABELS[key] ?? (key.charAt(0).toUpperCase() + key.slice(1)).replaceAll("_", " ");
