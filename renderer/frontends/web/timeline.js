// Exact frame rates and holds in the browser: what is shown before a render is what the file will have.
//
// The same rules as renderer/timeline.py, in whole numbers: floating point would put a boundary on another frame than
// the daemon does, sooner or later. The tests compare the two.

const FPS_TEXT = /^(?:[0-9]{1,3}(?:\.[0-9]{1,12})?|[0-9]{1,6}\/[0-9]{1,4})$/;
const CLOCK_TEXT = /^(?:([0-9]{1,3}):(?=[0-5][0-9]:))?([0-9]{1,5}):([0-5][0-9](?:\.[0-9]{0,12})?)$/; // 1:30, 1:02:07.5
const SECONDS_TEXT = /^[0-9]{0,7}(?:\.[0-9]{0,12})?$/;
const MAX_DENOMINATOR = 1001n;
const NTSC_RATES = [24n, 30n, 48n, 60n, 120n].map((rate) => ratio(rate * 1000n, 1001n));

function gcd(a, b) {
  while (b) [a, b] = [b, a % b];
  return a;
}

/** A fraction in lowest terms: n / d, both BigInt. */
function ratio(n, d) {
  const shared = gcd(n, d) || 1n;
  return { n: n / shared, d: d / shared };
}

function decimal(text) {
  const [whole, decimals = ""] = text.split(".");
  return ratio(BigInt((whole || "0") + decimals), 10n ** BigInt(decimals.length));
}

function isRounded(rate, written, decimals) {
  const scale = 10n ** BigInt(decimals);
  const rounded = (2n * rate.n * scale + rate.d) / (2n * rate.d);
  return rounded * written.d === written.n * scale;
}

/** The nearest fraction with a denominator of 1001 at most (the continued fraction, cut off). */
function nearest({ n, d }) {
  if (d <= MAX_DENOMINATOR) return { n, d };
  let [p0, q0, p1, q1, rest, by] = [0n, 1n, 1n, 0n, n, d];
  for (;;) {
    const whole = rest / by;
    if (q0 + whole * q1 > MAX_DENOMINATOR) break;
    [p0, q0, p1, q1] = [p1, q1, p0 + whole * p1, q0 + whole * q1];
    [rest, by] = [by, rest - whole * by];
  }
  const steps = (MAX_DENOMINATOR - q0) / q1;
  const last = { n: p0 + steps * p1, d: q0 + steps * q1 };
  return 2n * by * last.d <= d ? { n: p1, d: q1 } : last;
}

/** The exact rate that a text stands for, or null if it is not a rate: "23.976" is 24000/1001. */
export function frameRate(text) {
  const written = String(text).trim();
  if (!FPS_TEXT.test(written)) return null;
  return written.includes("/") ? fraction(written) : rounded(written);
}

const isInRange = ({ n, d }) => n >= d && n <= 120n * d;

function fraction(written) {
  const [n, d] = written.split("/").map(BigInt);
  const rate = d ? ratio(n, d) : null;
  return rate && rate.d <= MAX_DENOMINATOR && isInRange(rate) ? rate : null;
}

function rounded(written) {
  const value = decimal(written);
  if (!isInRange(value)) return null;
  const decimals = (written.split(".")[1] ?? "").length;
  const meant = decimals >= 2 && NTSC_RATES.find((ntsc) => isRounded(ntsc, value, decimals));
  return meant || nearest(value);
}

export const perSecond = (rate) => Number(rate.n) / Number(rate.d);

/** Seconds as they were typed, without colons: "1:30.5" is "90.5". */
function plain(amount) {
  const text = String(amount).trim();
  const [, hours = 0, minutes, rest] = CLOCK_TEXT.exec(text) ?? [];
  if (!minutes) return text;
  const [whole, decimals = ""] = rest.split(".");
  return `${(Number(hours) * 60 + Number(minutes)) * 60 + Number(whole)}.${decimals}`;
}

export const holdSeconds = (amount) => Number(plain(amount));

/** Seconds as they were typed, "2.5" or "1:30"; NaN if they are neither. */
export function typedSeconds(text) {
  const value = plain(text);
  return /[0-9]/.test(value) && SECONDS_TEXT.test(value) ? Number(value) : NaN;
}

/** What is wrong with one hold as it was typed, in words, or an empty text. */
function holdFault(amount, unit) {
  const text = String(amount).trim();
  if (!text) return unit === "frames" ? "Enter a number of frames." : "Enter a number of seconds.";
  if (unit === "frames") return /^0*[1-9][0-9]{0,6}$/.test(text) ? "" : "Enter a whole number of frames, 1 or more.";
  const value = plain(text);
  const isPositive = SECONDS_TEXT.test(value) && decimal(value).n > 0n;
  return isPositive ? "" : "Enter seconds, such as 2.5, or minutes, such as 1:30.";
}

/**
 * Lay the stills out one after the other. A hold in seconds ends at the frame nearest to the running total, so that
 * rounding never adds up.
 *
 * @param holds [{amount, unit}], as typed; unit is "frames" or "seconds".
 * @param rate  from frameRate.
 * @returns {holds, ends, frames, faults}: frames of each, the frame after each, their sum, and words by index.
 */
export function layOut(holds, rate) {
  const [lengths, ends, faults] = [[], [], new Map()];
  let total = { n: 0n, d: 1n };
  let end = 0;
  holds.forEach(({ amount, unit }, index) => {
    const wrong = holdFault(amount, unit);
    if (wrong) faults.set(index, wrong);
    else {
      const value = decimal(unit === "frames" ? String(amount).trim() : plain(amount));
      const frames = unit === "frames" ? value : { n: value.n * rate.n, d: value.d * rate.d };
      total = ratio(total.n * frames.d + frames.n * total.d, total.d * frames.d);
    }
    const start = end;
    end = Number((2n * total.n + total.d) / (2n * total.d));
    if (!wrong && end <= start) faults.set(index, `Too short to show a frame at ${shortRate(rate)} fps.`);
    lengths.push(end - start);
    ends.push(end);
  });
  return { holds: lengths, ends, frames: end, faults };
}

/**
 * Make the stills last as long as their sound.
 *
 * @param laid    from layOut, which gave one frame to each still that shares the sound's time.
 * @param sharing the indexes of those stills; if it is empty, the last still is held until the sound ends.
 * @param samples where the sound ends, at 48 kHz.
 */
export function following({ holds, frames, faults }, sharing, samples, rate) {
  const whole = 2n * BigInt(samples) * rate.n;
  const by = 48000n * rate.d;
  const end = Number((whole + by) / (2n * by));
  const lengths = [...holds];
  const count = sharing.length;
  const room = Math.max(count, end - frames + count);
  const edge = (at) => Math.floor((2 * room * at + count) / (2 * count));
  sharing.forEach((index, at) => (lengths[index] = edge(at + 1) - edge(at)));
  if (!count && lengths.length) lengths[lengths.length - 1] += Math.max(0, end - frames);
  const ends = [];
  for (const length of lengths) ends.push((ends.at(-1) ?? 0) + length);
  return { holds: lengths, ends, frames: ends.at(-1) ?? 0, faults };
}

/** The still that a frame shows: the first whose end lies after it. */
export function stillAt(ends, frame) {
  let [low, high] = [0, ends.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > frame) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The seconds that a number of frames takes: exact if six decimals suffice, else rounded and marked with "≈". */
export function seconds(frames, rate) {
  const exact = ratio(BigInt(frames) * rate.d, rate.n);
  const micros = (2n * exact.n * 1000000n + exact.d) / (2n * exact.d);
  const text = `${micros / 1000000n}.${String(micros % 1000000n).padStart(6, "0")}`.replace(/\.?0+$/, "");
  return (exact.n * 1000000n) % exact.d === 0n ? text : `≈ ${text}`;
}

/** A position as a clock: 0:07.500, 1:02:07.500. */
export function clock(frame, rate) {
  const millis = Number((BigInt(frame) * rate.d * 1000n) / rate.n);
  return `${minutes(Math.floor(millis / 1000))}.${String(millis % 1000).padStart(3, "0")}`;
}

/** Whole seconds as m:ss, or h:mm:ss. */
export function minutes(whole) {
  const pad = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const of = Math.floor(whole / 60) % 60;
  return `${hours ? `${hours}:${pad(of)}` : of}:${pad(whole % 60)}`;
}

/** How long something plays, from its seconds as text: "7.5 s", and from a minute on "1:30.5". */
export function duration(text) {
  const [, about, whole, decimals] = /^(≈ )?([0-9]+)(\.[0-9]+)?$/.exec(text);
  return Number(whole) < 60 ? `${text} s` : `${about ?? ""}${minutes(Number(whole))}${decimals ?? ""}`;
}

/** A rate for people: 24, 23.976, 33.333. */
export const shortRate = (rate) => String(Number(perSecond(rate).toFixed(3)));
