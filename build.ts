/**
 * Builds dist/omlx: wheels → libmlxc → default model → one binary that carries them. Steps whose inputs did not change
 * are skipped. `--slim` leaves the default model out.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { ensureDefaultModel } from "./scripts/default-model.ts";
import { buildNative } from "./scripts/native.ts";

const ROOT = import.meta.dir;
const OUTPUT = join(ROOT, "dist", "omlx");
const STAMP = join(ROOT, "build", "omlx.stamp");
const isSlim = process.argv.includes("--slim");

interface Carried {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

const native = await buildNative();
const model = isSlim ? null : await ensureDefaultModel();
const carried: Carried[] = [
  ...native.files.map((file) => describe(join(native.dir, file), `lib/${file}`)),
  ...(model
    ? filesBelow(model).map((path) =>
        describe(path, `models/${modelName(model)}/${relative(model, path)}`),
      )
    : []),
];
const inputs = [
  ...filesBelow(join(ROOT, "src")),
  join(ROOT, "package.json"),
  join(ROOT, "package-lock.json"),
  join(ROOT, "build.ts"),
];
const stamp = fingerprint([...inputs, ...carried.map((file) => file.path)]);
const isCurrent = existsSync(OUTPUT) && existsSync(STAMP) && readFileSync(STAMP, "utf8") === stamp;
if (!isCurrent) await compile();

async function compile(): Promise<void> {
  mkdirSync(join(ROOT, "dist"), { recursive: true });
  const staged = `${OUTPUT}.new`;
  const result = await Bun.build({
    entrypoints: [
      join(ROOT, "src", "main.ts"),
      join(ROOT, "src", "front", "text", "worker.ts"),
      join(ROOT, "src", "device", "grammar", "worker.ts"),
    ],
    compile: { outfile: staged },
    // compiled ahead, and in parts that are read when they are needed: a process starts twice as fast
    bytecode: true,
    format: "esm",
    splitting: true,
    minify: { syntax: true, whitespace: true },
    sourcemap: "none",
    plugins: [
      {
        name: "embedded-files",
        setup(build) {
          build.onLoad({ filter: /src[\\/]embedded[\\/]files\.ts$/ }, () => ({
            contents: embeddedModule(carried),
            loader: "ts",
          }));
        },
      },
    ],
  });
  if (!result.success) {
    for (const line of result.logs) console.error(line);
    process.exit(1);
  }
  renameSync(staged, OUTPUT);
  await Bun.write(STAMP, stamp);
  const megabytes = statSync(OUTPUT).size / 1e6;
  console.log(`Built ${relative(ROOT, OUTPUT)} (${megabytes.toFixed(0)} MB)`);
}

/** The module that stands in for src/embedded/files.ts. */
function embeddedModule(files: readonly Carried[]): string {
  const hash = createHash("sha256");
  for (const file of files) hash.update(file.name).update(readFileSync(file.path));
  const imports = files.map(
    (file, i) => `import f${i} from ${JSON.stringify(file.path)} with { type: "file" };`,
  );
  const rows = files.map(
    (file, i) => `{ name: ${JSON.stringify(file.name)}, source: f${i}, bytes: ${file.bytes} },`,
  );
  return [
    ...imports,
    `export const EMBEDDED_HASH = ${JSON.stringify(hash.digest("hex"))};`,
    `export const EMBEDDED_FILES = [${rows.join("\n")}];`,
  ].join("\n");
}

function describe(path: string, name: string): Carried {
  return { name, path, bytes: statSync(path).size };
}

function modelName(folder: string): string {
  return folder.split("/").at(-1) ?? "default";
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Small files by content, large ones by size and time. */
function fingerprint(paths: readonly string[]): string {
  const hash = createHash("sha256").update(Bun.version);
  for (const path of paths) {
    const info = statSync(path);
    hash.update(relative(ROOT, path));
    hash.update(info.size > 1e6 ? `${info.size} ${info.mtimeMs}` : readFileSync(path));
  }
  return hash.digest("hex");
}
