// Sizes and rectangles, as renderer/geometry.py chooses them: the preview shows where each still will be.

const evenUp = (side) => Math.max(2, side + (side % 2));

/** Half to even, as Python rounds. */
function round(value) {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 ? down + 1 : down;
}

const evenNear = (side) => Math.max(2, 2 * round(side / 2));

/** The canvas of this width, or of this height, in the still's shape. */
const asWide = (still, width) => ({ width, height: evenNear((width * still.height) / still.width) });
const asHigh = (still, height) => ({ width: evenNear((height * still.width) / still.height), height });

/**
 * The size of the video: the size that was asked for, or else that of the first still; odd sides grow by one.
 *
 * @param first {width, height} after orientation; width, height: numbers, or null for none.
 */
export function canvasFor(first, width, height) {
  if (width && height) return { width: evenUp(width), height: evenUp(height) };
  if (width) return asWide(first, evenUp(width));
  if (height) return asHigh(first, evenUp(height));
  return { width: evenUp(first.width), height: evenUp(first.height) };
}

/** Where a still is placed: {crop: [x, y, width, height] in the still, box: [x, y, width, height] on the canvas}. */
export function place(still, canvas, fit) {
  const whole = [0, 0, still.width, still.height];
  const isWithinOne = (side, of) => side === of || side === of - 1;
  if (isWithinOne(still.width, canvas.width) && isWithinOne(still.height, canvas.height)) {
    return { crop: whole, box: whole };
  }
  if (fit === "stretch") return { crop: whole, box: [0, 0, canvas.width, canvas.height] };
  const ratios = [canvas.width / still.width, canvas.height / still.height];
  const isThis = (other) => other.width === canvas.width && other.height === canvas.height;
  // No bars where still and canvas differ in shape by rounding alone.
  if (fit === "pad" && [asWide(still, canvas.width), asHigh(still, canvas.height)].some(isThis)) {
    return { crop: whole, box: [0, 0, canvas.width, canvas.height] };
  }
  if (fit === "pad") return { crop: whole, box: centred(scaled(still, Math.min(...ratios), canvas), canvas) };
  const scale = Math.max(...ratios);
  const width = Math.min(still.width, Math.max(1, round(canvas.width / scale)));
  const height = Math.min(still.height, Math.max(1, round(canvas.height / scale)));
  const crop = [Math.floor((still.width - width) / 2), Math.floor((still.height - height) / 2), width, height];
  return { crop, box: [0, 0, canvas.width, canvas.height] };
}

function scaled(still, scale, canvas) {
  const fitted = (side, most) => Math.min(most, scale === 1 ? side : evenNear(side * scale));
  return { width: fitted(still.width, canvas.width), height: fitted(still.height, canvas.height) };
}

function centred({ width, height }, canvas) {
  const offset = (free) => Math.floor(free / 4) * 2;
  return [offset(canvas.width - width), offset(canvas.height - height), width, height];
}
