/** The text Worker's entry: loads one model's tokenizer and template, then renders and encodes, one message at a time. */
import { toErrorData } from "#core/contract";
import type { FromText, ToText } from "./messages.ts";
import { ModelText } from "./model-text.ts";

declare const self: Worker;

let model: ModelText | undefined;

self.onmessage = (event: MessageEvent<ToText>) => {
  const message = event.data;
  try {
    switch (message.kind) {
      case "load": {
        model = new ModelText(message.modelId, message.path, message.purpose);
        reply({ kind: "loaded", id: message.id, loaded: model.loaded });
        break;
      }
      case "encode": {
        if (model === undefined) throw new Error("the text Worker has no model yet");
        const { source } = message;
        const encoded =
          source.kind === "raw"
            ? { ids: model.tokenizer.encodeRaw(source.text), notes: [] }
            : model.encode(source.conversation, message.id);
        const ids = Int32Array.from(encoded.ids);
        reply({ kind: "encoded", id: message.id, ids, notes: encoded.notes }, [ids.buffer]);
        break;
      }
      case "remember":
        model?.remember(message.id, message.ids);
        break;
      case "texts": {
        if (model === undefined) throw new Error("the text Worker has no model yet");
        const encoded = model.encodeTexts(message.source);
        const { ids, ends, seconds, cut } = encoded;
        const buffers = [ids, ends, cut, ...(seconds ? [seconds] : [])].map((a) => a.buffer);
        reply({ kind: "texts", id: message.id, encoded }, buffers);
        break;
      }
    }
  } catch (error) {
    reply({ kind: "failed", id: message.id, error: toErrorData(error) });
  }
};

function reply(message: FromText, transfer: ArrayBuffer[] = []): void {
  self.postMessage(message, transfer);
}
