import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  describeSettings,
  expandPath,
  loadSettings,
  parseArgs,
  SETTING_NAMES,
  SETTINGS,
} from "#front/config";

let home = "";
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "omlx-config-"));
});
afterAll(() => rmSync(home, { recursive: true }));

/** Settings of these arguments, environment and settings file. */
function load(args: string[], env: Record<string, string> = {}, file?: string) {
  const base = join(home, ".omlx");
  mkdirSync(base, { recursive: true });
  writeFileSync(join(base, "settings.json"), file ?? "");
  return loadSettings(parseArgs(args).flags, { HOME: home, ...env });
}

const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    expect(error).toMatchObject({ name: "OmlxError", code: "invalid_request" });
    return (error as Error).message;
  }
  throw new Error("nothing was thrown");
};

describe("loadSettings()", () => {
  test("gives the defaults when nothing is set", () => {
    const { settings, warnings } = load([]);
    expect(settings).toMatchObject({
      host: "127.0.0.1",
      port: 8000,
      modelDir: [join(home, ".omlx/models")],
      apiKey: "",
      logLevel: "info",
      maxConcurrentRequests: 8,
      kernels: "native",
      keepAliveMs: 5000,
      bodyLimit: 256 * 1024 * 1024,
      stallTimeoutMs: 10_000,
    });
    expect(warnings).toEqual([]);
  });

  test("takes the command line before the environment, the file and the default", () => {
    const file = JSON.stringify({ server: { port: 3, host: "file" }, scheduler: { max_queue: 5 } });
    const { settings } = load(["--port", "1"], { OMLX_PORT: "2", OMLX_HOST: "env" }, file);
    expect(settings).toMatchObject({ port: 1, host: "env", maxQueue: 5, threads: 0 });
  });

  test("counts an empty environment variable as absent", () => {
    expect(load([], { OMLX_PORT: "" }).settings.port).toBe(8000);
  });

  test("joins the model folders of several flags and of commas, in order", () => {
    const { settings } = load(["--model-dir", "/a,/b", "--model-dir=~/c"]);
    expect(settings.modelDir).toEqual(["/a", "/b", join(home, "c")]);
    expect(load([], { OMLX_MODEL_DIR: " /x , ,/y" }).settings.modelDir).toEqual(["/x", "/y"]);
  });

  test("reads a switch from every source", () => {
    expect(load([]).settings.modelFallback).toBe(false);
    expect(load(["--model-fallback", "on"]).settings.modelFallback).toBe(true);
    expect(load([], { OMLX_MODEL_FALLBACK: "off" }).settings.modelFallback).toBe(false);
    const file = (value: unknown) => JSON.stringify({ model: { model_fallback: value } });
    expect(load([], {}, file(true)).settings.modelFallback).toBe(true);
    expect(load([], {}, file(1)).warnings[0]).toContain("must be on or off");
  });

  test("keeps models below the base folder", () => {
    const { settings } = load(["--base-path", "/data"]);
    expect(settings.basePath).toBe("/data");
    expect(settings.modelDir).toEqual(["/data/models"]);
  });

  test.each([
    ["512", 512],
    ["64kb", 65_536],
    ["1.5 GB", 1.5 * 2 ** 30],
    ["2g", 2 ** 31],
  ])("reads the size %p", (text, bytes) => {
    expect(load(["--cache-size", text]).settings.cacheSize).toBe(bytes);
  });

  test.each([
    [["--port", "abc"], {}, '--port "abc"'],
    [["--port", "70000"], {}, "from 0 to 65535"],
    [["--port=-1"], {}, '--port "-1"'],
    [["--port=8000.5"], {}, "whole number"],
    [[], { OMLX_PORT: "8k" }, 'OMLX_PORT "8k"'],
    [["--log-level", "loud"], {}, "one of trace, debug, info, warning, error"],
    [["--kernels", "fast"], {}, "one of native, exact, int8, stock"],
    [["--model-fallback", "maybe"], {}, "on or off"],
    [[], { OMLX_BODY_LIMIT: "much" }, "512MB"],
    [["--host="], {}, "--host"],
  ])("names the place and the value of %p %p", (args, env, expected) => {
    expect(messageOf(() => load(args, env as Record<string, string>))).toContain(expected);
  });

  test("never shows a key in a message", () => {
    const message = messageOf(() => load(["--api-key", "two words"]));
    expect(message).toContain("--api-key");
    expect(message).not.toContain("two words");
  });

  test("warns of a wrong value in the file and uses its default", () => {
    const { settings, warnings } = load([], {}, '{"server":{"port":"x"},"unknown":1}');
    expect(settings.port).toBe(8000);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain("server.port");
  });

  test("starts with defaults when the file is broken, unless a key may be in it", () => {
    expect(load([], {}, "{").warnings[0]).toContain("settings.json");
    expect(messageOf(() => load([], {}, '{"auth":{"api_key":"s"}'))).toContain("API key");
    expect(messageOf(() => load([], {}, '{"auth":{"api_key":5}}'))).toContain("auth.api_key");
  });

  test("reads no inherited properties of the file", () => {
    expect(load([], {}, '{"server":{"__proto__":{"port":1}}}').settings.port).toBe(8000);
  });
});

describe("parseArgs()", () => {
  test("keeps words apart from flags", () => {
    const { flags, words } = parseArgs(["serve", "--port=1", "x", "--", "--host"]);
    expect(words).toEqual(["serve", "x", "--host"]);
    expect([...flags]).toEqual([["port", "1"]]);
  });

  test("names an unknown flag and the one that was meant", () => {
    expect(messageOf(() => parseArgs(["--prot", "1"]))).toContain("did you mean --port?");
    expect(messageOf(() => parseArgs(["--frobnicate"]))).not.toContain("did you mean");
  });

  test("refuses a flag without a value", () => {
    expect(messageOf(() => parseArgs(["--port"]))).toContain("--port needs a value");
    expect(messageOf(() => parseArgs(["--host", "--port", "1"]))).toContain("--host needs a value");
  });
});

test("every setting has its own flag, variable and place in the file, and is described", () => {
  const all = SETTING_NAMES.map((name) => SETTINGS[name]);
  for (const key of ["flag", "env", "file"] as const) {
    expect(new Set(all.map((s) => s[key])).size).toBe(all.length);
  }
  const text = describeSettings();
  for (const s of all) expect(text).toContain(s.flag);
});

test("expandPath() follows the home folder", () => {
  expect(expandPath("~/x", { HOME: "/h" })).toBe("/h/x");
  expect(expandPath("/x/~", { HOME: "/h" })).toBe("/x/~");
});
