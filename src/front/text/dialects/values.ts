import { isRecord } from "./json.ts";
import { pythonToJson } from "./python.ts";

const MAX_REFS = 16;

type JsonType = "string" | "integer" | "number" | "boolean" | "object" | "array" | "null";

/** The types that a schema allows; empty: any. */
function typesOf(schema: unknown, root: unknown, depth = 0): ReadonlySet<string> {
  const none: ReadonlySet<string> = new Set();
  if (!isRecord(schema) || depth > MAX_REFS) return none;
  const { type, $ref: ref } = schema;
  if (typeof type === "string") return new Set([type]);
  if (Array.isArray(type)) return new Set(type.map(String));
  if (typeof ref === "string") return typesOf(resolve(ref, root), root, depth + 1);
  const values = Array.isArray(schema["enum"])
    ? schema["enum"]
    : "const" in schema
      ? [schema["const"]]
      : null;
  if (values !== null) return new Set(values.map(typeOf));
  const branches = schema["anyOf"] ?? schema["oneOf"];
  if (!Array.isArray(branches)) return none;
  const sets = branches.map((branch) => typesOf(branch, root, depth + 1));
  if (sets.some((set) => set.size === 0)) return none;
  return new Set(sets.flatMap((set) => [...set]));
}

function resolve(ref: string, root: unknown): unknown {
  if (!ref.startsWith("#/")) return undefined;
  let node = root;
  for (const key of ref.slice(2).split("/")) {
    const name = key.replaceAll("~1", "/").replaceAll("~0", "~");
    node = isRecord(node) && Object.hasOwn(node, name) ? node[name] : undefined;
  }
  return node;
}

function typeOf(value: unknown): JsonType {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value as JsonType;
}

/** How the value of a parameter is to be read whose text has no type of its own. */
export class ParameterTypes {
  readonly #root: unknown;

  /** @param parameters JSON schema of all arguments */
  constructor(parameters: unknown) {
    this.#root = parameters;
  }

  #typesOf(key: string): ReadonlySet<string> {
    const properties = isRecord(this.#root) ? this.#root["properties"] : undefined;
    const known = isRecord(properties) && Object.hasOwn(properties, key);
    return known ? typesOf(properties[key], this.#root) : new Set();
  }

  /** The value can be told before all of it is known. */
  isString(key: string): boolean {
    const types = this.#typesOf(key);
    return types.size === 1 && types.has("string");
  }

  /** JSON text of a value: what the schema allows, else what the text looks like. */
  toJson(key: string, text: string): string {
    const types = this.#typesOf(key);
    const trimmed = text.trim();
    const json = jsonText(trimmed) ?? pythonToJson(trimmed);
    if (json === undefined || (types.size === 1 && types.has("string")))
      return JSON.stringify(text);
    if (types.size === 0) return json;
    const type = typeOf(JSON.parse(json));
    const fits = types.has(type) || (type === "integer" && types.has("number"));
    return fits || !types.has("string") ? json : JSON.stringify(text);
  }
}

function jsonText(text: string): string | undefined {
  try {
    JSON.parse(text);
    return text;
  } catch {
    return undefined;
  }
}
