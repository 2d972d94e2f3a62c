// Pictures in the browser: their sizes, thumbnails, and a few large ones for the preview.
//
// A photograph of 24 megapixels is 96 MB once decoded. So each is decoded, shrunk and let go at once; thumbnails are
// kept for all, preview sizes only for the stills near the one that is shown.

const THUMB_SIDE = 320;
const PREVIEW_SIDE = 1280;
const PREVIEWS_KEPT = 24;
const DECODING_AT_ONCE = 2;

const previews = new Map(); // key -> Promise of a bitmap, oldest first
const ready = new Map(); // key -> bitmap
const waiting = [];
let decoding = 0;

/** Run `work` when one of the few places is free. */
async function inTurn(work) {
  if (decoding >= DECODING_AT_ONCE) await new Promise((go) => waiting.push(go));
  decoding += 1;
  try {
    return await work();
  } finally {
    decoding -= 1;
    waiting.shift()?.();
  }
}

function shrunk(width, height, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

function drawn(bitmap, side) {
  const [width, height] = shrunk(bitmap.width, bitmap.height, side);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas;
}

/**
 * Measure a picture and make its thumbnail.
 *
 * @returns {width, height, thumb}: as it stands upright, and a blob: URL; null if this browser cannot read the format
 *     (the daemon reads more of them).
 */
export function look(file) {
  return inTurn(async () => {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    } catch {
      return null;
    }
    const { width, height } = bitmap;
    const blob = await drawn(bitmap, THUMB_SIDE).convertToBlob({ type: "image/webp", quality: 0.85 });
    bitmap.close();
    return { width, height, thumb: URL.createObjectURL(blob) };
  });
}

/** The bitmap to show for a still if it is at hand; else it is fetched, and `arrived` called when it is. */
export function preview(still, arrived) {
  if (!still.thumb || !still.file) return null;
  if (!previews.has(still.key)) {
    const making = inTurn(() => shrink(still.file)).then((bitmap) => {
      if (!bitmap || !previews.has(still.key)) return bitmap?.close();
      ready.set(still.key, bitmap);
      arrived();
    });
    previews.set(still.key, making);
    dropOldest();
  }
  return ready.get(still.key) ?? null;
}

async function shrink(file) {
  try {
    const whole = await createImageBitmap(file, { imageOrientation: "from-image" });
    const bitmap = drawn(whole, PREVIEW_SIDE).transferToImageBitmap();
    whole.close();
    return bitmap;
  } catch {
    return null;
  }
}

function dropOldest() {
  while (previews.size > PREVIEWS_KEPT) forget(previews.keys().next().value);
}

/** Let go of what is held for a still. */
export function forget(key) {
  previews.delete(key);
  ready.get(key)?.close();
  ready.delete(key);
}
