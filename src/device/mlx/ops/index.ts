/** Operations under MLX's names. */
export * from "./elementwise.ts";
export * from "./matrix.ts";
export * from "./reduce.ts";
export * from "./shape.ts";
