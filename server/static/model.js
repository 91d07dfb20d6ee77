// The exported model in the page: fetched once, checked against its manifest, run by onnxruntime-web.
//
//   const model = await openModel("int8");
//   const context = await model.run(["see", "you"]);  // { logits, r, c, top: [{ id, probability }] }
//
// After openModel nothing asks the network. Where the server has no onnxruntime-web, or the browser cannot run it,
// `model.where` is "server", `model.reason` says why, there is no `run`, and suggest.js asks the server for words.
import { API } from "./task.js";
import { Tokens } from "./tokens.js";

const LATEST = `${API}/models/latest`;
const WASM = "ort-wasm-simd-threaded.wasm"; // stands beside the module
const ATTEMPTS = 3; // a bundle may be replaced between its manifest and its files
const WINDOW = 64; // of a long text the model sees the last 64 to 127 words, as kbdfl/export/predictor.py
const KEPT = 128; // contexts that are kept, 4 bytes a word of the vocabulary each

/** What the server has: { version, rounds, precisions: { name: { bytes, sha256 } }, runtime: address or null }. */
export async function available() {
  return JSON.parse(decode(await fetched(LATEST)));
}

/** The newest model at "float32", "int8" or "int4". Throws an Error in one line when it cannot be had. */
export async function openModel(precision) {
  const offer = await available();
  if (!offer.runtime) return serverModel("onnxruntime-web is not installed on the server");
  if (!offer.precisions[precision]) {
    throw new Error(`the server has no ${precision} model, only ${Object.keys(offer.precisions).join(", ")}`);
  }
  const { manifest, tokenizer, model } = await download(precision);
  try {
    const ort = await import(offer.runtime);
    ort.env.wasm.numThreads = 1; // more would need a cross-origin isolated page
    ort.env.wasm.wasmPaths = { wasm: new URL(WASM, new URL(offer.runtime, location)).href };
    const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3 });
    const opened = new BrowserModel(ort, session, manifest, new Tokens(JSON.parse(decode(tokenizer))));
    await opened.run([]); // the first step compiles, and shows that it runs
    return opened;
  } catch (error) {
    return serverModel(`onnxruntime-web does not run here: ${error.message}`);
  }
}

/** A model that runs on the server: what is known of it, and the words to show. */
async function serverModel(reason) {
  const [manifest, tokenizer] = await Promise.all(
    ["manifest.json", "tokenizer.json"].map(async (name) => JSON.parse(decode(await fetched(`${LATEST}/${name}`)))),
  );
  const tokens = new Tokens(tokenizer);
  return { where: "server", reason, ...facts(manifest), words: tokens.words, tokens, close() {} };
}

function facts({ precision, rounds, version, files, config }) {
  return { precision, rounds, version, bytes: files["model.onnx"].bytes, embed: config.embed };
}

class BrowserModel {
  #ort;
  #session;
  #start;
  #hidden;
  #contexts = new Map(); // ids -> Promise of a context, the longest unused first

  constructor(ort, session, manifest, tokens) {
    Object.assign(this, { where: "browser", reason: null, ...facts(manifest), words: tokens.words, tokens });
    this.#ort = ort;
    this.#session = session;
    this.#hidden = manifest.config.hidden;
    this.#start = { r: new Float32Array(this.embed), c: new Float32Array(this.#hidden) };
  }

  /**
   * The model's outputs after some words: `logits` (one a token, specials included), the recurrent output `r` (embed),
   * the cell `c` (hidden) and the three likeliest words. One step for each word not seen in this place before.
   * A context is shared: it must not be written to.
   */
  run(committedWords) {
    const from = Math.max(0, Math.floor(committedWords.length / WINDOW) - 1) * WINDOW;
    return this.#context(this.tokens.context(committedWords.slice(from)));
  }

  /** Let go of the session's memory; the model cannot be run afterwards. */
  async close() {
    await Promise.allSettled(this.#contexts.values());
    this.#contexts.clear();
    await this.#session.release();
  }

  #context(ids) {
    const key = ids.join(" ");
    let context = this.#contexts.get(key);
    this.#contexts.delete(key); // and set again: a Map keeps the order in which keys came
    if (!context) {
      const before = ids.length > 1 ? this.#context(ids.slice(0, -1)) : this.#start;
      context = this.#step(ids.at(-1), before);
      context.catch(() => this.#contexts.delete(key)); // whoever awaits it hears of it; the next call tries again
    }
    this.#contexts.set(key, context);
    if (this.#contexts.size > KEPT) this.#contexts.delete(this.#contexts.keys().next().value);
    return context;
  }

  async #step(id, before) {
    const { r, c } = await before;
    const { Tensor } = this.#ort;
    const out = await this.#session.run({
      token: new Tensor("int64", [BigInt(id)], [1]),
      state_r: new Tensor("float32", r, [1, this.embed]),
      state_c: new Tensor("float32", c, [1, this.#hidden]),
    });
    const probabilities = out.top_probs.data;
    return {
      logits: out.logits.data,
      r: out.next_state_r.data,
      c: out.next_state_c.data,
      top: Array.from(out.top_ids.data, (id, i) => ({ id: Number(id), probability: probabilities[i] })),
    };
  }
}

// what is fetched

const decode = (bytes) => new TextDecoder().decode(bytes);

async function fetched(address) {
  const response = await fetch(address, { cache: "no-cache" }); // the browser's copy, if the server says it is new
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? `${address} answered ${response.status}`);
  }
  return new Uint8Array(await response.arrayBuffer());
}

async function download(precision) {
  const names = ["tokenizer.json", "model.onnx"];
  for (let attempt = 1; ; attempt++) {
    const [said, tokenizer, model] = await Promise.all(
      ["manifest.json", ...names].map((name) => fetched(`${LATEST}/${precision}/${name}`)),
    );
    const manifest = JSON.parse(decode(said));
    const content = { "tokenizer.json": tokenizer, "model.onnx": model };
    const matches = await Promise.all(names.map((name) => isFile(content[name], manifest.files[name])));
    if (matches.every(Boolean)) return { manifest, tokenizer, model };
    if (attempt === ATTEMPTS) throw new Error(`the ${precision} model does not match its manifest`);
  }
}

/** Whether `content` has the size and the sha256 of the manifest. A page without TLS has no hash to compare. */
async function isFile(content, { bytes, sha256 }) {
  if (content.length !== bytes) return false;
  if (!globalThis.crypto?.subtle) return true;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}
