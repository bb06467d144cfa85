/**
 * Builds the shim against an installed mlx-c instead of the subset in libmlxc/mlx-c, without the kernels, and runs the
 * tensor tests on it. mlx-c is in no package registry, so this is no part of the tests.
 *
 *     git clone --branch v0.6.0 https://github.com/ml-explore/mlx-c
 *     cmake -S mlx-c -B mlx-c/build -DMLX_C_USE_SYSTEM_MLX=ON -DMLX_C_BUILD_EXAMPLES=OFF \
 *       -DCMAKE_PREFIX_PATH=<MLX_ROOT> -DCMAKE_INSTALL_PREFIX=<MLXC_ROOT>
 *     cmake --build mlx-c/build --target install
 *     MLXC_ROOT=<…> [MLX_ROOT=<…>] bun scripts/mlx-c.ts
 *
 * MLX_ROOT holds include/ and lib/ of the MLX that this mlx-c was made for; by default it is the wheel of 0.31.2, which
 * mlx-c 0.6.0 goes with (Linux on x86-64 only; `bun scripts/mlx-c.ts --mlx` prints its folder). `--rehearse` installs our
 * own subset as the mlx-c, over the MLX that it is written for: it shows that this way works, not that mlx-c does.
 */
import { copyFileSync, cpSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { cpus } from "node:os";
import { basename, dirname, join } from "node:path";
import { HEADERS, readDeclarations, signatureDigest } from "./gen-symbols.ts";
import { fetchWheel, run, WHEELS, type Wheel } from "./wheels.ts";

const ROOT = join(import.meta.dir, "..");
const SOURCE = join(ROOT, "libmlxc");
const BUILD = join(ROOT, "build", "mlxc");
const LIB = join(BUILD, "lib");

/** What mlx-c 0.6.0 was made for. */
const MLX: Wheel = {
  name: "mlx-cpu",
  version: "0.31.2",
  sha256: "32bd40b8e7351b64b15921db5c24305726f97673e2fc512b1d5dc6727bb2f414",
  platform: "manylinux_2_35_x86_64",
};

/** Everything that needs tensors and no kernels; models run on stock operations. */
const TESTS = ["bindings", "donation", "dtype", "errors", "ffi-soak", "ops", "scope"].map(
  (name) => `test/device/mlx/${name}.test.ts`,
);

const isRehearsal = process.argv.includes("--rehearse");
const mlxRoot = process.env["MLX_ROOT"] || (await mlxWheel());
if (process.argv.includes("--mlx")) {
  process.stdout.write(`${mlxRoot}\n`);
  process.exit(0);
}
const mlxcRoot = isRehearsal ? await installSubset() : process.env["MLXC_ROOT"];
if (!mlxcRoot) {
  process.stderr.write("MLXC_ROOT must name an installed mlx-c; scripts/mlx-c.ts tells how\n");
  process.exit(2);
}
await build(mlxcRoot);
await run(
  [process.execPath, "test", "--timeout", "600000", ...TESTS],
  "the tensor tests fail on this mlx-c",
  { OMLX_LIB_DIR: LIB },
);
// stock operations alone make whole models
await run(
  [process.execPath, "test", "--timeout", "600000", "test/parity/tiny.test.ts", "-t", "stock"],
  "the models fail on this mlx-c",
  { OMLX_LIB_DIR: LIB },
);

async function mlxWheel(): Promise<string> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error("MLX_ROOT must name the MLX that this mlx-c was made for");
  }
  return join(await fetchWheel(isRehearsal ? WHEELS["mlx-linux-x64"] : MLX), "mlx");
}

async function build(mlxc: string): Promise<void> {
  const signatures = (header: string) => signatureDigest(readDeclarations(header));
  await run(
    [
      ...["cmake", "-S", SOURCE, "-B", BUILD, `-DMLX_ROOT=${mlxRoot}`, `-DMLXC_ROOT=${mlxc}`],
      "-DOMLX_KERNELS=OFF",
      `-DOMLX_SIGNATURES=${signatures(HEADERS.core)}`,
      `-DOMLX_KERNEL_SIGNATURES=${signatures(HEADERS.kernels)}`,
    ],
    "cannot configure the shim against this mlx-c",
  );
  await run(
    ["cmake", "--build", BUILD, "--parallel", String(cpus().length)],
    "cannot build the shim against this mlx-c",
  );
  rmSync(LIB, { recursive: true, force: true });
  mkdirSync(LIB, { recursive: true });
  const isLibrary = (name: string) => /\.(?:so|dylib|metallib)(?:\.|$)/.test(name);
  const wheel = dirname(mlxRoot);
  const folders = [
    BUILD,
    join(mlxRoot, "lib"),
    join(mlxc, "lib"),
    ...readdirSync(wheel)
      .filter((name) => name.endsWith(".libs"))
      .map((name) => join(wheel, name)),
  ];
  for (const folder of folders) {
    for (const name of readdirSync(folder).filter(isLibrary)) {
      copyFileSync(join(folder, name), join(LIB, basename(name)));
    }
  }
}

/** Our subset, built and laid out as an installed mlx-c is. */
async function installSubset(): Promise<string> {
  const prefix = join(BUILD, "subset");
  const sources = join(SOURCE, "mlx-c");
  rmSync(prefix, { recursive: true, force: true });
  mkdirSync(join(prefix, "lib"), { recursive: true });
  cpSync(sources, join(prefix, "include"), {
    recursive: true,
    filter: (path) => !/\.cpp$|\/private$/.test(path),
  });
  const objects: string[] = [];
  for (const file of readdirSync(join(sources, "mlx", "c")).filter((f) => f.endsWith(".cpp"))) {
    const object = join(prefix, file.replace(/\.cpp$/, ".o"));
    await run(
      [
        ...["c++", "-std=c++20", "-O1", "-fPIC", "-c", join(sources, "mlx", "c", file)],
        ...["-I", sources, "-isystem", join(mlxRoot, "include"), "-o", object],
      ],
      `cannot compile ${file} against this MLX`,
    );
    objects.push(object);
  }
  await run(["ar", "rcs", join(prefix, "lib", "libmlxc.a"), ...objects], "cannot make libmlxc.a");
  return prefix;
}
