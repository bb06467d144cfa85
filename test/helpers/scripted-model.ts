import { mkdir } from "node:fs/promises";
import { join } from "node:path";

/** What a scripted checkpoint says, whatever it is asked. */
export interface Script {
  /** Cut into tokens of a word or a few, so that no token occurs twice. */
  readonly text?: string;
  /**
   * Instead of `text`: the tokens themselves, no two alike, at least two bytes each or one byte that no prompt ends
   * with. A Uint8Array may hold part of a character. Names of SCRIPTED_SPECIALS are emitted as those specials.
   */
  readonly tokens?: readonly (string | Uint8Array)[];
  /** Starts again after the last token; else <|im_end|> (EOS) follows, and the script again where EOS is ignored. */
  readonly loop?: boolean;
  /** max_position_embeddings; 2,048 if not given. Prompts are one token per byte. */
  readonly window?: number;
  /** Decoder layers, all without effect on the result: more make every token dearer. 1 if not given. */
  readonly layers?: number;
  /** Chat template; ChatML without tools if not given. */
  readonly template?: string;
  /** Added tokens instead of SCRIPTED_SPECIALS; <|im_end|> must be one of them. */
  readonly specials?: readonly string[];
}

/** Special tokens of every scripted checkpoint, ids 256 and up in this order. */
export const SCRIPTED_SPECIALS = [
  "<|endoftext|>",
  "<|im_start|>",
  "<|im_end|>",
  "<think>",
  "</think>",
  "<tool_call>",
  "</tool_call>",
] as const;

/** Byte value of every id below 256, and the character that byte-level BPE writes for it. */
const BYTE_CHARS = byteChars();
const HIDDEN = 64;
const HEAD_DIM = 16;
const INTERMEDIATE = 64;
/** Largest sum of products of two states; the logit margin is HIDDEN minus this. */
const MAX_OVERLAP = 28;

const CHAT_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/**
 * Writes a llama checkpoint (float32, MLX layout, with tokenizer and ChatML template) that emits the script's tokens at
 * any temperature up to 1, as a pure function of the last token: embeddings are nearly orthogonal sign vectors,
 * attention and MLP add zero, and the head maps each token's vector to its successor. Every token outside the script
 * leads to the script's first token.
 *
 * @returns `dir`, which is created
 * @throws {RangeError} if the tokens cannot tell the script's places apart
 */
export async function writeScriptedModel(dir: string, script: Script): Promise<string> {
  const specials: readonly string[] = script.specials ?? SCRIPTED_SPECIALS;
  const pieces = piecesOf(script, specials);
  const vocabulary = [...BYTE_CHARS, ...specials, ...newPieces(pieces, specials)];
  const ids = scriptIds(pieces, vocabulary);
  const eos = vocabulary.indexOf("<|im_end|>");
  const window = script.window ?? 2048;
  const layers = script.layers ?? 1;

  await mkdir(dir, { recursive: true });
  const write = (name: string, data: unknown) =>
    Bun.write(join(dir, name), `${JSON.stringify(data, null, 1)}\n`);
  await write("config.json", {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: HIDDEN,
    num_hidden_layers: layers,
    intermediate_size: INTERMEDIATE,
    num_attention_heads: 1,
    num_key_value_heads: 1,
    head_dim: HEAD_DIM,
    vocab_size: vocabulary.length,
    max_position_embeddings: window,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
    torch_dtype: "float32",
    eos_token_id: eos,
  });
  await write("generation_config.json", { eos_token_id: [eos] });
  await write("tokenizer.json", tokenizer(vocabulary, specials));
  await write("tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: null,
    eos_token: "<|im_end|>",
    clean_up_tokenization_spaces: false,
    model_max_length: window,
    chat_template: script.template ?? CHAT_TEMPLATE,
  });
  const tensors = weights(vocabulary.length, ids, script.loop === true ? undefined : eos, layers);
  await Bun.write(join(dir, "model.safetensors"), safetensors(tensors));
  return dir;
}

/** ChatML that knows tools, and after whose first result an answer begins behind the token <|im_end|>. */
const TOOL_TEMPLATE =
  "{% set seen = namespace(result=false) %}{% if tools %}<|im_start|>system\nCall with <tool_call>.\n" +
  "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}" +
  "{% for message in messages %}{% if message.role == 'tool' %}{% set seen.result = true %}{% endif %}" +
  "<|im_start|>{{ message.role }}\n{{ message.content }}" +
  "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% if seen.result %}<|im_end|>{% endif %}{% endif %}";

/**
 * The script of a model that calls a tool first, and says something once the conversation holds a result.
 *
 * @param call JSON text
 */
export function callingScript(say: string, call: string, then: string): Script {
  return {
    text: `${say}\n<tool_call>\n${call}\n</tool_call><|im_end|>${then}`,
    template: TOOL_TEMPLATE,
  };
}

/** Token ids of the script in a checkpoint of writeScriptedModel, for tests that compare ids. */
export function scriptedIds(script: Script): number[] {
  const specials: readonly string[] = script.specials ?? SCRIPTED_SPECIALS;
  const pieces = piecesOf(script, specials);
  return scriptIds(pieces, [...BYTE_CHARS, ...specials, ...newPieces(pieces, specials)]);
}

function piecesOf(script: Script, specials: readonly string[]): string[] {
  const tokens = script.tokens ?? cutUnique(script.text ?? "", specials);
  return tokens.map((token) => byteLevel(token, specials));
}

/**
 * Specials, and words with the space before them; a piece that occurred already takes the next words with it until it is
 * new.
 */
function cutUnique(text: string, specials: readonly string[]): string[] {
  const seen = new Set<string>();
  const pieces: string[] = [];
  const isNew = (piece: string) => new TextEncoder().encode(piece).length >= 2 && !seen.has(piece);
  for (const part of splitAt(text, specials)) {
    if (specials.includes(part)) {
      pieces.push(part);
      continue;
    }
    let open = "";
    const first = pieces.length;
    for (const word of part.match(/\s*\S+|\s+$/gu) ?? []) {
      open += word;
      if (!isNew(open)) continue;
      seen.add(open);
      pieces.push(open);
      open = "";
    }
    // What is left over joins the pieces before it, until that is new as well.
    while (open !== "" && !isNew(open) && pieces.length > first) open = (pieces.pop() ?? "") + open;
    if (open === "") continue;
    seen.add(open);
    pieces.push(open);
  }
  return pieces;
}

function splitAt(text: string, specials: readonly string[]): string[] {
  const found = specials
    .map((special) => ({ special, at: text.indexOf(special) }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at || b.special.length - a.special.length)[0];
  if (found === undefined) return text === "" ? [] : [text];
  const { special, at } = found;
  const rest = splitAt(text.slice(at + special.length), specials);
  return [...(at > 0 ? [text.slice(0, at)] : []), special, ...rest];
}

/** GPT-2's table: printable bytes stand for themselves, the others for characters from U+0100 on. */
function byteChars(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCodePoint(isPrintable ? byte : next++);
  });
}

function byteLevel(piece: string | Uint8Array, specials: readonly string[]): string {
  if (typeof piece === "string" && specials.includes(piece)) return piece;
  const bytes = typeof piece === "string" ? new TextEncoder().encode(piece) : piece;
  return Array.from(bytes, (byte) => BYTE_CHARS[byte] ?? "").join("");
}

function newPieces(pieces: readonly string[], specials: readonly string[]): string[] {
  return pieces.filter((piece) => piece.length > 1 && !specials.includes(piece));
}

function scriptIds(pieces: readonly string[], vocabulary: readonly string[]): number[] {
  if (pieces.length === 0)
    throw new RangeError("Cannot write a scripted model: the script is empty");
  const double = pieces.find((piece, i) => pieces.indexOf(piece) !== i);
  if (double !== undefined) {
    throw new RangeError(`Cannot write a scripted model: token "${double}" occurs twice`);
  }
  if (pieces.includes(byteLevel("\n", []))) {
    throw new RangeError(
      "Cannot write a scripted model: prompts end with the token of a line feed",
    );
  }
  return pieces.map((piece) => vocabulary.indexOf(piece));
}

function tokenizer(vocabulary: readonly string[], specials: readonly string[]): unknown {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specials.map((content) => ({
      id: vocabulary.indexOf(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: content.startsWith("<|"),
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "ByteLevel",
      add_prefix_space: false,
      trim_offsets: true,
      use_regex: true,
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocabulary.map((piece, id) => [piece, id])),
      merges: [],
    },
  };
}

interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** `eos` undefined: the last token leads back to the first. */
function weights(
  vocabSize: number,
  ids: readonly number[],
  eos: number | undefined,
  layers: number,
): Tensor[] {
  const states = signVectors(ids.length + 1); // [0]: every token outside the script
  const embedding = new Float32Array(vocabSize * HIDDEN);
  const head = new Float32Array(vocabSize * HIDDEN);
  for (let id = 0; id < vocabSize; id++) embedding.set(states[0] ?? [], id * HIDDEN);
  const addTo = (id: number, state: readonly number[] = []) => {
    for (const [i, sign] of state.entries())
      head[id * HIDDEN + i] = (head[id * HIDDEN + i] ?? 0) + sign;
  };
  for (const [place, id] of ids.entries()) {
    embedding.set(states[place + 1] ?? [], id * HIDDEN);
    addTo(id, states[place]);
  }
  addTo(eos ?? ids[0] ?? 0, states[ids.length]);

  const ones = (n: number) => new Float32Array(n).fill(1);
  const wave = (n: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i + 1) / 8);
  const tensors: Tensor[] = [
    { name: "model.embed_tokens.weight", shape: [vocabSize, HIDDEN], data: embedding },
    { name: "model.norm.weight", shape: [HIDDEN], data: ones(HIDDEN) },
    { name: "lm_head.weight", shape: [vocabSize, HIDDEN], data: head },
  ];
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, shape: number[], fill: (n: number) => Float32Array) =>
      tensors.push({
        name: `model.layers.${layer}.${name}.weight`,
        shape,
        data: fill(shape.reduce((a, b) => a * b)),
      });
    const zeros = (n: number) => new Float32Array(n);
    add("input_layernorm", [HIDDEN], ones);
    add("post_attention_layernorm", [HIDDEN], ones);
    for (const part of ["q", "k", "v"]) add(`self_attn.${part}_proj`, [HEAD_DIM, HIDDEN], wave);
    add("self_attn.o_proj", [HIDDEN, HEAD_DIM], zeros);
    for (const part of ["gate", "up"]) add(`mlp.${part}_proj`, [INTERMEDIATE, HIDDEN], wave);
    add("mlp.down_proj", [HIDDEN, INTERMEDIATE], zeros);
  }
  return tensors;
}

/** Vectors of +1 and -1 no two of which agree too much; the same ones every time. */
function signVectors(count: number): number[][] {
  let seed = 1;
  const random = () => {
    // xorshift32 (Marsaglia 2003)
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return seed >>> 0;
  };
  const chosen: [number, number][] = [];
  for (let tries = 0; chosen.length < count; tries++) {
    if (tries > 1000 * count) {
      throw new RangeError(`Cannot write a scripted model: ${count - 1} tokens are too many`);
    }
    const [a, b] = [random(), random()];
    const fits = chosen.every(
      ([c, d]) => HIDDEN - 2 * (ones32(a ^ c) + ones32(b ^ d)) <= MAX_OVERLAP,
    );
    if (fits) chosen.push([a, b]);
  }
  return chosen.map((words) =>
    words.flatMap((word) => Array.from({ length: 32 }, (_, i) => ((word >>> i) & 1 ? 1 : -1))),
  );
}

/** Number of one bits. */
function ones32(word: number): number {
  let n = 0;
  for (let rest = word; rest !== 0; rest &= rest - 1) n++;
  return n;
}

/** The file format of safetensors: header length (u64), JSON header padded to 8 bytes, data. */
function safetensors(tensors: readonly Tensor[]): Blob {
  let end = 0;
  const entries = tensors.map(({ name, shape, data }) => {
    const begin = end;
    end += data.byteLength;
    return [name, { dtype: "F32", shape, data_offsets: [begin, end] }] as const;
  });
  const json = JSON.stringify(
    Object.fromEntries([["__metadata__", { format: "mlx" }], ...entries]),
  );
  const header = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = new BigUint64Array([BigInt(header.length)]);
  return new Blob([length, header, ...tensors.map((tensor) => new Uint8Array(tensor.data.buffer))]);
}
