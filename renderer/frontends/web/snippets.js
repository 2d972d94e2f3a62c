// The request as programs for four clients. Each runs unchanged in the directory of the image files.
//
// cURL and JavaScript upload; fal_client's own upload goes to the hosted service whatever its settings say, so there
// the bytes travel in the request; over ZeroMQ they are attachments.

const APP = "fal-ai/ffmpeg-api/images-to-video";

/** JSON that a person can read: a line per image. `write(image, at)` writes one of them. */
function body(request, write, indent) {
  const { images, ...rest } = request;
  const lines = images.map((image, at) => `${indent}    ${write(image, at)},`);
  const last = lines.length - 1;
  lines[last] = lines[last].slice(0, -1);
  const others = Object.entries(rest).map(
    ([name, value]) => `,\n${indent}  ${JSON.stringify(name)}: ${JSON.stringify(value)}`,
  );
  return `{\n${indent}  "images": [\n${lines.join("\n")}\n${indent}  ]${others.join("")}\n${indent}}`;
}

/** One image as JSON, with another expression in the place of its URL. */
function image(entry, url) {
  const hold = entry.frames === undefined ? `"duration": ${entry.duration}` : `"frames": ${entry.frames}`;
  return `{"url": ${url}, ${hold}}`;
}

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function curl({ request, files, base, hasKey }) {
  const key = hasKey ? ` -H "Authorization: Key $FAL_KEY"` : "";
  const upload = (entry, at) => image(entry, `"$(upload ${shell(files[at].name)} ${shell(files[at].type)})"`);
  return `upload() {
  curl -sS ${base}/files/upload${key} \\
    -H "X-Fal-File-Name: $1" -H "Content-Type: $2" --data-binary "@$1" |
    sed 's/.*"access_url" *: *"\\([^"]*\\)".*/\\1/'
}

curl -sS ${base}/run/${APP}${key} \\
  -H "Content-Type: application/json" -d @- <<JSON
${body(request, upload, "")}
JSON`;
}

function python({ request, files, base, https }) {
  const encode = (entry, at) => image(entry, `fal_client.encode_file(${JSON.stringify(files[at].name)})`);
  const secure = base.startsWith("https://") ? base : https;
  const door = secure?.slice("https://".length) ?? "127.0.0.1:8443";
  const how = secure ? "" : `# fal_client speaks HTTPS only: start the daemon with --https ${door} too.\n`;
  return `# pip install fal-client
${how}# export FAL_KEY=key SSL_CERT_FILE=cert.pem
# export FAL_RUN_HOST=${door}/run FAL_QUEUE_RUN_HOST=${door}/queue
import fal_client

result = fal_client.subscribe(
    "${APP}",
    arguments=${body(request, encode, "    ")},
)
print(result["video"]["url"], result["frames"])`;
}

function javascript({ request, files, base }) {
  const blob = (entry, at) =>
    image(entry, `await file(${JSON.stringify(files[at].name)}, ${JSON.stringify(files[at].type)})`);
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
  const attached = (entry, at) => image(entry, `"cid:${at}"`);
  const reads = files.map(({ name }) => `    Path(${JSON.stringify(name)}).read_bytes(),`);
  const curve = zmqNeedsKey ? `, curve="alice.curve"` : "";
  const how = zmqNeedsKey ? `# alice.curve is made on the server: stillreel keys curve alice\n` : "";
  return `${how}from pathlib import Path

from protocol.client import Client

request = ${body(request, attached, "")}
stills = [
${reads.join("\n")}
]

with Client("${zmq}"${curve}) as client:
    result = client.render(request, attachments=stills)
print(result.video.url, result.frames)`;
}

export const SNIPPETS = [
  { name: "cURL", write: curl },
  { name: "Python", write: python },
  { name: "JavaScript", write: javascript },
  { name: "ZeroMQ", write: zmq },
];
