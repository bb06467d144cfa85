import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { generate, parseDeclarations, signatureDigest } from "../../../scripts/gen-symbols.ts";

const FILE = join(import.meta.dir, "../../../src/device/mlx/symbols.gen.ts");

describe("generated bindings", () => {
  test("symbols.gen.ts is what the headers give", () => {
    expect(readFileSync(FILE, "utf8")).toBe(generate());
  });

  test("parseDeclarations() reads types, comments and line breaks", () => {
    const source = `
      #ifndef A
      /* int not_this(void); */
      extern "C" {
      void* omlx_one(const int* shape, int n,
                     float scale); // trailing
      const char* omlx_two(void);
      void omlx_three(double x, const char* path);
      }
      #endif`;
    expect(parseDeclarations(source)).toEqual([
      {
        name: "omlx_one",
        returns: "pointer",
        args: [
          { name: "shape", type: "pointer" },
          { name: "n", type: "i32" },
          { name: "scale", type: "f32" },
        ],
      },
      { name: "omlx_two", returns: "string", args: [] },
      {
        name: "omlx_three",
        returns: "void",
        args: [
          { name: "x", type: "f64" },
          { name: "path", type: "string" },
        ],
      },
    ]);
  });

  test("parseDeclarations() refuses what bun:ffi cannot call safely", () => {
    expect(() => parseDeclarations("int f(size_t n);")).toThrow('f: the type "size_t"');
    expect(() => parseDeclarations("int f(int);")).toThrow("no name");
    const nine = Array.from({ length: 9 }, (_, i) => `int a${i}`).join(", ");
    expect(() => parseDeclarations(`int f(${nine});`)).toThrow("more than 8 integer arguments");
    const floats = `${nine.replace("int a8", "float a8")}`;
    expect(parseDeclarations(`int f(${floats});`)).toHaveLength(1);
  });

  test("signatureDigest() changes with a type, not with a comment or a parameter's name", () => {
    const digest = (source: string) => signatureDigest(parseDeclarations(source));
    const base = digest("int f(int a, float b); void g(void);");
    expect(digest("void g(void); /* x */ int f(int c, float d);")).toBe(base);
    expect(digest("int f(float a, float b); void g(void);")).not.toBe(base);
    expect(digest("int f(int a, float b);")).not.toBe(base);
  });
});

describe("the shim", () => {
  test("includes mlx-c and nothing else of MLX", () => {
    const dir = join(import.meta.dir, "../../../libmlxc/src");
    const includes = readdirSync(dir).flatMap((file) =>
      [...readFileSync(join(dir, file), "utf8").matchAll(/#include [<"](mlx\/[^">]+)/g)].map(
        (match) => match[1],
      ),
    );
    expect(includes.length).toBeGreaterThan(0);
    expect(includes.filter((name) => !name?.startsWith("mlx/c/"))).toEqual([]);
  });
});
