// Evaluates JSONata expressions with the reference engine: a list of {expression, bindings} in, a list of
// {value} or {error} out, as JSON.
import jsonata from "jsonata";
import { readFileSync } from "node:fs";

const answers = [];
for (const { expression, bindings } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    answers.push({ value: await jsonata(expression).evaluate(undefined, bindings) });
  } catch (error) {
    answers.push({ error: error.message });
  }
}
process.stdout.write(JSON.stringify(answers));
