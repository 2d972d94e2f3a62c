// Sounds in the browser: each file is decoded once, for its waveform and for the preview.
//
// A decoded sound takes 23 MB a minute, so what is long is neither drawn nor played here; the daemon reads it anyway.

import { faded, faultsOf, inFile, placed } from "./sound.js";

const LONGEST_S = 20 * 60;
const PEAKS_PER_S = 200;
const FADE_POINTS_PER_S = 100;
const LEAD_S = 0.05; // so that all sounds are ready when the first begins
const PATIENCE_S = 1; // until the preview runs without a sound that does not begin

const files = new WeakMap(); // file -> {heard: promise, found: what it resolved to}
let context = null;
let playing = [];

/**
 * Listen to a file.
 *
 * @returns {long_s, buffer, peaks}; null if this browser cannot decode it; buffer and peaks are null if it is long.
 */
export function hear(file) {
  if (!files.has(file)) {
    const entry = { found: null };
    entry.heard = listen(file).then((found) => (entry.found = found));
    files.set(file, entry);
  }
  return files.get(file).heard;
}

/** What is known of a file so far. */
export const heardOf = (file) => files.get(file)?.found ?? null;

async function listen(file) {
  const long_s = await lengthOf(file);
  if (long_s === null) return null;
  if (long_s > LONGEST_S) return { long_s, buffer: null, peaks: null };
  try {
    const buffer = await new OfflineAudioContext(1, 1, 48000).decodeAudioData(await file.arrayBuffer());
    return { long_s: buffer.duration, buffer, peaks: peaksOf(buffer) };
  } catch {
    return null;
  }
}

/** How long a file says it is; null if this browser cannot play it. */
function lengthOf(file) {
  return new Promise((told) => {
    const url = URL.createObjectURL(file);
    const player = new Audio();
    const tell = (long_s) => {
      URL.revokeObjectURL(url);
      told(long_s);
    };
    // A file that does not say how long it is, such as a recording in WebM, is decoded to find out.
    player.onloadedmetadata = () => tell(Number.isFinite(player.duration) ? player.duration : 0);
    player.onerror = () => tell(null);
    player.preload = "metadata";
    player.src = url;
  });
}

/** The loudest sample of each short piece, over all channels. */
function peaksOf(buffer) {
  const size = buffer.sampleRate / PEAKS_PER_S;
  const peaks = new Float32Array(Math.ceil(buffer.length / size));
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (let at = 0; at < samples.length; at += 1) {
      const piece = Math.floor(at / size);
      const level = Math.abs(samples[at]);
      if (level > peaks[piece]) peaks[piece] = level;
    }
  }
  return peaks;
}

/** The loudest sample between two moments of a file. */
export function peak(peaks, from_s, to_s) {
  const first = Math.max(0, Math.floor(from_s * PEAKS_PER_S));
  const after = Math.min(peaks.length, Math.max(first + 1, Math.ceil(to_s * PEAKS_PER_S)));
  let most = 0;
  for (let at = first; at < after; at += 1) if (peaks[at] > most) most = peaks[at];
  return most;
}

/** Play the sounds of a video from a moment on; returns a clock of the seconds that were played since. */
export function play(sounds, from_s, video_s) {
  silence();
  const begun_ms = performance.now();
  const passed_s = () => (performance.now() - begun_ms) / 1000;
  const ready = sounds.filter((sound) => heardOf(sound.file)?.buffer && !faultsOf(sound).size);
  if (!ready.length) return passed_s;
  context ??= new AudioContext();
  context.resume().catch(() => {}); // without a loudspeaker the stills play alone
  const asked = context.currentTime;
  const begun = asked + LEAD_S;
  playing = ready.map((sound) => begin(sound, begun, from_s, video_s)).filter(Boolean);
  return () => {
    const now = context.currentTime;
    const played_s = now > asked ? now - begun - (context.outputLatency || 0) : passed_s() - PATIENCE_S;
    return Math.max(0, played_s);
  };
}

/** Schedule a sound of a video whose moment `from_s` is when the context's clock says `begun`. */
function begin(sound, begun, from_s, video_s) {
  const place = placed(sound, video_s);
  const into_s = Math.max(0, from_s - place.at);
  const left_s = place.length_s - into_s;
  if (left_s <= 0) return null;
  const { buffer } = heardOf(sound.file);
  const when = begun + Math.max(0, place.at - from_s);
  const level = 10 ** (place.gain_db / 20);
  const points = Math.max(2, Math.ceil(left_s * FADE_POINTS_PER_S));
  const levels = Float32Array.from({ length: points }, (_, at) => {
    return level * faded(place, into_s + (left_s * at) / (points - 1));
  });
  const gain = new GainNode(context);
  gain.gain.setValueCurveAtTime(levels, when, left_s);
  const part = { loop: place.loop, loopStart: place.start, loopEnd: buffer.duration };
  const source = new AudioBufferSourceNode(context, { buffer, ...part });
  source.connect(gain).connect(context.destination);
  source.start(when, inFile(place, buffer.duration, into_s), left_s);
  return source;
}

function silence() {
  for (const source of playing) source.disconnect();
  playing = [];
}

export function stop() {
  silence();
  context?.suspend();
}
