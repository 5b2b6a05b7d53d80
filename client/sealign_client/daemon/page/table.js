// Rows of CSV, TSV, JSONL and text files, read as a stream. Only LF and CRLF end a line.

export function formatOf(name) {
  const plain = name.toLowerCase().replace(/\.gz$/, "");
  if (plain.endsWith(".csv")) return "csv";
  if (plain.endsWith(".tsv")) return "tsv";
  return /\.(jsonl|ndjson)$/.test(plain) ? "jsonl" : "text";
}

// Yields objects by column name; `count` is told how many bytes of the file have been read.
export async function* rowsOf(file, format, count = () => {}) {
  let stream = file.stream().pipeThrough(
    new TransformStream({
      transform(chunk, controller) {
        count(chunk.byteLength);
        controller.enqueue(chunk);
      },
    }),
  );
  if (file.name.toLowerCase().endsWith(".gz")) stream = stream.pipeThrough(new DecompressionStream("gzip"));
  const reader = stream.pipeThrough(new TextDecoderStream("utf-8", { fatal: true })).getReader();
  const rows = format === "csv" || format === "tsv" ? delimited(reader, format === "csv" ? "," : "\t") : lines(reader, format);
  try {
    yield* rows;
  } catch (error) {
    if (error instanceof TypeError) throw new Error("The file is not UTF-8, or is damaged. Convert it to UTF-8.");
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function* lines(reader, format) {
  let held = "";
  let line = 0;
  for await (const [chunk, last] of chunks(reader)) {
    held += chunk;
    const parts = held.split("\n");
    held = last ? "" : parts.pop();
    for (const part of parts) {
      line++;
      const text = part.endsWith("\r") ? part.slice(0, -1) : part;
      if (text !== "") yield format === "jsonl" ? parsed(text, line) : { text };
    }
  }
}

function parsed(text, line) {
  try {
    const row = JSON.parse(text);
    if (row !== null && typeof row === "object" && !Array.isArray(row)) return row;
  } catch {
    // Falls through to the error below.
  }
  throw new Error(`Line ${line} is not a JSON object. Correct it, or leave it out.`);
}

async function* delimited(reader, separator) {
  let header = null;
  let record = 0;
  for await (const cells of records(reader, separator)) {
    if (cells.length === 1 && cells[0] === "") continue;
    record++;
    if (header === null) {
      header = cells;
      continue;
    }
    if (cells.length !== header.length) {
      throw new Error(`Record ${record} has ${cells.length} cells and the header has ${header.length}. Correct the file.`);
    }
    yield Object.fromEntries(header.map((name, index) => [name, cells[index]]));
  }
}

// Records after RFC 4180: quoted cells may hold separators, line ends and doubled quotes.
async function* records(reader, separator) {
  let cells = [];
  let cell = "";
  let quoted = false;
  let closing = false; // a quote was read inside a quoted cell: its end, or the first of two
  for await (const [chunk, last] of chunks(reader)) {
    for (const letter of chunk) {
      if (closing) {
        closing = false;
        if (letter === '"') {
          cell += letter;
          continue;
        }
        quoted = false;
      }
      if (quoted) {
        if (letter === '"') closing = true;
        else cell += letter;
      } else if (letter === '"' && cell === "" && separator === ",") quoted = true;
      else if (letter === separator) {
        cells.push(cell);
        cell = "";
      } else if (letter === "\n") {
        cells.push(cell.endsWith("\r") ? cell.slice(0, -1) : cell);
        yield cells;
        cells = [];
        cell = "";
      } else cell += letter;
    }
    if (last) {
      if (quoted && !closing) throw new Error("A quoted cell does not end. Correct the file.");
      if (cell !== "" || cells.length > 0) yield [...cells, cell];
    }
  }
}

async function* chunks(reader) {
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      yield [held, true];
      return;
    }
    yield [held, false];
    held = value;
  }
}

// The columns of a file's first row.
export async function columnsOf(file, format) {
  for await (const row of rowsOf(file, format)) return Object.keys(row);
  throw new Error("The file has no rows.");
}

const cellOf = (value) => {
  const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

export function toCsv(rows) {
  const names = Object.keys(rows[0] ?? {});
  return new Blob([names, ...rows.map((row) => names.map((name) => row[name]))].map((cells) => `${cells.map(cellOf).join(",")}\r\n`), { type: "text/csv" });
}

export function toJsonl(rows) {
  return new Blob(rows.map((row) => `${JSON.stringify(row)}\n`), { type: "application/jsonl" });
}
