// The request as programs for four clients. Each runs unchanged in the directory of the images and sounds.
//
// cURL and JavaScript upload; fal_client's own upload goes to the hosted service whatever its settings say, so there
// the bytes travel in the request; over ZeroMQ they are attachments.

const APP = "fal-ai/ffmpeg-api/images-to-video";

/**
 * JSON that a person can read: a line per image and per sound.
 *
 * @param urlOf called with the place of a file among all, images first; returns the expression of its URL.
 * @param written how the language writes a value, where JSON would be read as something else.
 */
function body({ images, audio = [], ...rest }, urlOf, indent, written = JSON.stringify) {
  const list = (name, sources, before) => {
    const lines = sources.map((source, at) => `${indent}    ${entry(source, urlOf(before + at), written)}`);
    return `"${name}": [\n${lines.join(",\n")}\n${indent}  ]`;
  };
  const others = Object.entries(rest).map(([name, value]) => `${JSON.stringify(name)}: ${written(value)}`);
  const sounds = audio.length ? [list("audio", audio, images.length)] : [];
  const parts = [list("images", images, 0), ...sounds, ...others].map((part) => `${indent}  ${part}`);
  return `{\n${parts.join(",\n")}\n${indent}}`;
}

/** One image or sound, with an expression in the place of its URL. */
function entry({ url: _, ...fields }, url, written) {
  const others = Object.entries(fields).map(([name, value]) => `, "${name}": ${written(value)}`);
  return `{"url": ${url}${others.join("")}}`;
}

const inHereDocument = (value) => JSON.stringify(value).replace(/[\\$`]/g, "\\$&");
const inPython = (value) => (value === true ? "True" : JSON.stringify(value));
const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function curl({ request, files, base, hasKey }) {
  const key = hasKey ? ` -H "Authorization: Key $FAL_KEY"` : "";
  const upload = (at) => `"$(upload ${shell(files[at].name)} ${shell(files[at].type)})"`;
  return `upload() {
  curl -sS ${base}/files/upload${key} \\
    -H "X-Fal-File-Name: $1" -H "Content-Type: $2" --data-binary "@$1" |
    sed 's/.*"access_url" *: *"\\([^"]*\\)".*/\\1/'
}

curl -sS ${base}/run/${APP}${key} \\
  -H "Content-Type: application/json" -d @- <<JSON
${body(request, upload, "", inHereDocument)}
JSON`;
}

function python({ request, files, base, https }) {
  const encode = (at) => `fal_client.encode_file(${JSON.stringify(files[at].name)})`;
  const secure = base.startsWith("https://") ? base : https;
  const door = secure?.slice("https://".length) ?? "127.0.0.1:8443";
  const how = secure ? "" : `# fal_client speaks HTTPS only: start the daemon with --https ${door} too.\n`;
  return `# pip install fal-client
${how}# export FAL_KEY=key SSL_CERT_FILE=cert.pem
# export FAL_RUN_HOST=${door}/run FAL_QUEUE_RUN_HOST=${door}/queue
import fal_client

result = fal_client.subscribe(
    "${APP}",
    arguments=${body(request, encode, "    ", inPython)},
)
print(result["video"]["url"], result["frames"])`;
}

function javascript({ request, files, base }) {
  const blob = (at) => `await file(${JSON.stringify(files[at].name)}, ${JSON.stringify(files[at].type)})`;
  return `// npm install @fal-ai/client
import { readFile } from "node:fs/promises";
import { fal } from "@fal-ai/client";

const file = async (name, type) => new Blob([await readFile(name)], { type });
const here = (url) =>
  url
    .replace("https://queue.fal.run", "${base}/queue")
    .replace("https://fal.run", "${base}/run")
    .replace("https://rest.fal.ai", "${base}");

fal.config({
  credentials: process.env.FAL_KEY ?? "key",
  requestMiddleware: async (request) => ({ ...request, url: here(request.url) }),
});

const { data } = await fal.subscribe("${APP}", {
  input: ${body(request, blob, "  ")},
});
console.log(data.video.url, data.frames);`;
}

function zmq({ request, files, zmq = "tcp://127.0.0.1:5590", zmqNeedsKey }) {
  const attached = (at) => `"cid:${at}"`;
  const reads = files.map(({ name }) => `    Path(${JSON.stringify(name)}).read_bytes(),`);
  const curve = zmqNeedsKey ? `, curve="alice.curve"` : "";
  const how = zmqNeedsKey ? `# alice.curve is made on the server: stillreel keys curve alice\n` : "";
  return `${how}from pathlib import Path

from protocol.client import Client

request = ${body(request, attached, "", inPython)}
files = [
${reads.join("\n")}
]

with Client("${zmq}"${curve}) as client:
    result = client.render(request, attachments=files)
print(result.video.url, result.frames)`;
}

export const SNIPPETS = [
  { name: "cURL", write: curl },
  { name: "Python", write: python },
  { name: "JavaScript", write: javascript },
  { name: "ZeroMQ", write: zmq },
];
