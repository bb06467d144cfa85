/** The subset in libmlxc/mlx-c declares its functions as mlx-c's own headers do. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..", "..");

/** Declared by mlx-c in versions whose headers could not be read here. */
const UNREAD = [
  "mlx_device_count",
  "mlx_device_is_available",
  "mlx_disable_compile",
  "mlx_enable_compile",
  "mlx_fast_rope_dynamic",
  "mlx_set_error_handler",
  "mlx_stream_get_index",
  "mlx_version",
];

/** "int mlx_f(mlx_array* res, const mlx_stream s)" without names and without const on values. */
function typeOf(text: string): string {
  const plain = text.replace(/\s+/g, " ").trim();
  const callback = /^void \(\*\s*\w*\)\s*\((.*)\)$/.exec(plain);
  if (callback) return `void(*)(${callback[1]})`;
  const [, words = plain, stars = ""] =
    /^((?:const )?(?:struct )?\w+)\s*(\**)\s*\w*$/.exec(plain) ?? [];
  return (stars === "" ? words.replace(/^const /, "") : words) + stars;
}

/** Parameters at the commas outside of parentheses. */
function parameters(text: string): string[] {
  const parts = text.split(/,(?![^(]*\))/).map((part) => part.trim());
  return parts.filter((part) => part !== "" && part !== "void").map(typeOf);
}

function declarationsIn(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".h"))) {
    const text = readFileSync(join(folder, file), "utf8")
      .replace(/\/\*[\s\S]*?\*\//g, "")
      .replace(/^\s*#.*$/gm, "");
    const pattern = /([A-Za-z_][\w\s*]*?[\s*])(mlx_\w+)\s*\(((?:[^()]|\([^()]*\))*)\)\s*;/g;
    for (const [, result = "", name = "", inside = ""] of text.matchAll(pattern)) {
      const type = typeOf(`${result.replace(/\s*\*/g, "*")} r`).replace(/\s+\*/g, "*");
      found.set(name, `${type} (${parameters(inside).join(", ")})`);
    }
  }
  return found;
}

function wanted(): Map<string, string> {
  const lines = readFileSync(join(ROOT, "test/fixtures/mlx-c-declarations.txt"), "utf8").split(
    "\n",
  );
  return new Map(
    lines
      .filter((line) => line !== "" && !line.startsWith("#"))
      .flatMap((line) => {
        const colon = line.lastIndexOf(":");
        return line
          .slice(colon + 1)
          .trim()
          .split(" ")
          .map((name) => [name, line.slice(0, colon)] as const);
      }),
  );
}

describe("the subset of mlx-c", () => {
  const declared = declarationsIn(join(ROOT, "libmlxc", "mlx-c", "mlx", "c"));

  test("every function is declared as in mlx-c", () => {
    expect(declared.size).toBeGreaterThan(140);
    const checked = [...declared].filter(([name]) => !UNREAD.includes(name)).sort();
    expect(Object.fromEntries(checked)).toEqual(Object.fromEntries([...wanted()].sort()));
  });

  test("another parameter type, order or result would be seen", () => {
    expect(typeOf("const mlx_array a")).toBe("mlx_array");
    expect(typeOf("const int* axes")).toBe("const int*");
    expect(typeOf("void (*dtor)(void*)")).toBe("void(*)(void*)");
    expect(
      parameters("mlx_array* res, const mlx_array a, int axis, bool k, void (*f)(void*, int)"),
    ).toEqual(["mlx_array*", "mlx_array", "int", "bool", "void(*)(void*, int)"]);
  });
});
