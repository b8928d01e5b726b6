// A form from the JSON Schema of a workflow's inputs.

import { el } from "./dom.js";

/** Fields for the properties of an object's schema. */
export class Fields {
  constructor(schema) {
    const required = new Set(schema.required ?? []);
    this.fields = Object.entries(schema.properties ?? {}).map(([name, each]) =>
      field(name, each, required.has(name)));
    this.elements = this.fields.map((each) => each.element);
  }

  /** The inputs as JSON; null while a field has what does not fit, which the field then says. */
  body() {
    const inputs = {};
    let fits = true;
    for (const { name, control, read } of this.fields) {
      control.setCustomValidity("");
      try {
        const value = read();
        if (value !== undefined) inputs[name] = value;
      } catch (error) {
        control.setCustomValidity(error.message);
      }
      fits &&= control.checkValidity();
    }
    return fits ? JSON.stringify(inputs) : null;
  }
}

function field(name, schema, required) {
  const { kind, nullable } = kindOf(schema);
  const id = `input-${name}`;
  const note = [schema.description, bounds(kind, nullable, required)].filter(Boolean).join(" — ");
  const attributes = { id, required: required && !nullable,
                       "aria-describedby": note ? `${id}-note` : null };
  const [control, read] = controlOf(kind, nullable, schema.default, attributes);
  const chosen = control.type === "checkbox" || control instanceof HTMLSelectElement; // never empty
  const label = el("label", { for: id }, name,
                   required || chosen ? null : el("span", { class: "note" }, " optional"));
  const parts = control.type === "checkbox"
    ? [el("div", { class: "check" }, control, label)] : [label, control];
  if (note) parts.push(el("p", { class: "note", id: `${id}-note` }, note));
  return { name, control, read, element: el("div", { class: "field" }, ...parts) };
}

/** A schema without the option of null, and whether it had that. */
function kindOf(schema) {
  if (!schema.anyOf) return { kind: schema, nullable: schema.type === "null" };
  const options = schema.anyOf.filter((each) => each.type !== "null");
  return { kind: options.length === 1 ? options[0] : {}, nullable: options.length < schema.anyOf.length };
}

function controlOf(kind, nullable, initial, attributes) {
  if (kind.enum) return choice(kind.enum, nullable, initial, attributes);
  switch (kind.type) {
    case "string": return text(kind, nullable, initial, attributes);
    case "integer": case "number": return number(kind, nullable, initial, attributes);
    case "boolean":
      return nullable ? choice([true, false], true, initial, attributes) : check(initial, attributes);
    default: return json(nullable, initial, attributes);
  }
}

function text(kind, nullable, initial, attributes) {
  const control = el("textarea", { ...attributes, rows: 2 });
  control.value = initial ?? "";
  return [control, () => {
    if (!control.value && nullable) return null;
    const length = [...control.value].length; // characters, as the service counts them
    if (length < (kind.minLength ?? 0)) throw Error(`At least ${kind.minLength} characters.`);
    if (length > (kind.maxLength ?? Infinity)) throw Error(`At most ${kind.maxLength} characters, not ${length}.`);
    return control.value;
  }];
}

function number(kind, nullable, initial, attributes) {
  const control = el("input", { ...attributes, type: "number", min: kind.minimum, max: kind.maximum,
                                step: kind.type === "integer" ? 1 : "any" });
  control.value = initial ?? "";
  return [control, () => {
    if (!control.value) return nullable ? null : undefined;
    if (kind.type === "integer" && !Number.isSafeInteger(control.valueAsNumber)) {
      throw Error("A whole number, and not too large for a browser.");
    }
    return control.valueAsNumber;
  }];
}

function check(initial, attributes) {
  // Not required: that would mean that it has to be set.
  const control = el("input", { ...attributes, type: "checkbox", required: false });
  control.checked = initial === true;
  return [control, () => control.checked];
}

function choice(values, nullable, initial, attributes) {
  const options = nullable ? [null, ...values] : values;
  const control = el("select", attributes, ...options.map((value, index) =>
    el("option", { value: index }, value === null ? "none" : String(value))));
  control.selectedIndex = Math.max(0, options.indexOf(initial ?? null));
  return [control, () => options[control.selectedIndex]];
}

function json(nullable, initial, attributes) {
  const value = initial === undefined ? "" : JSON.stringify(initial, null, 2);
  const rows = Math.min(12, Math.max(2, value.split("\n").length));
  const control = el("textarea", { ...attributes, rows, class: "code", spellcheck: "false" });
  control.value = value;
  return [control, () => {
    if (!control.value.trim()) return nullable ? null : undefined;
    try {
      return JSON.parse(control.value);
    } catch {
      throw Error("This is not JSON.");
    }
  }];
}

function bounds(kind, nullable, required) {
  const found = [];
  if (kind.minimum !== undefined && kind.maximum !== undefined) found.push(`${kind.minimum} to ${kind.maximum}`);
  else if (kind.minimum !== undefined) found.push(`at least ${kind.minimum}`);
  else if (kind.maximum !== undefined) found.push(`at most ${kind.maximum}`);
  if (kind.maxLength) found.push(`up to ${kind.maxLength.toLocaleString("en")} characters`);
  if (!kind.enum && !["string", "integer", "number", "boolean"].includes(kind.type)) {
    found.push(kind.type === "array" ? "a list, as JSON" : "JSON");
  }
  if (nullable && required) found.push("may be empty");
  return found.join(", ");
}
