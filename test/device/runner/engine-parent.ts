/** Starts an engine, says its pid when it is loaded, and waits to be killed. */
import { EngineClient } from "./engine-client.ts";

const engine = new EngineClient({ modelPath: process.argv[2] as string });
await engine.loaded;
console.log(engine.process.pid);
