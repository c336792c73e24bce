// Numbers as a reader wants them, and small helpers that make elements.

function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2).replace(/\.?0+e\+?/, 'e');
  if (size >= 1000) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(4)));
}

// A value among others of its kind: always four digits.
function figure(value) {
  const size = Math.abs(value ?? NaN);
  return size >= 1e-4 && size < 1000 ? value.toPrecision(4) : number(value);
}

function bytes(value) {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  return `${Number(value.toPrecision(value >= 100 ? 4 : 3))} ${units[unit]}`;
}

// The largest unit of bytes that is no more than `value`.
function byteUnit(value) { return 1024 ** Math.max(0, Math.min(4, Math.floor(Math.log(value) / Math.log(1024)))); }

function percent(value) {
  if (value === null || value === undefined) return '–';
  return `${Number((100 * value).toPrecision(3))} %`;
}

function whole(value) {
  return value === null || value === undefined ? '–' : Math.round(value).toLocaleString('en-US');
}

// A step on an axis: short, and the same step never reads as another.
function shortStep(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return String(value);
}

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function shape(name, attributes = {}) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
