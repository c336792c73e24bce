// Builds the page from its data.

const data = JSON.parse(document.getElementById('data').textContent);
const view = { weight: 0, cursor: null, hidden: new Set() };

const trainingCharts = [
  {
    key: 'loss', title: 'Loss',
    about: 'Nats per token, mean over the batch; circles: held-out text.',
    format: figure, tick: number, held: true,
  },
  { key: 'lr', title: 'Learning rate', about: 'Of the step.', format: number, exact: true, low: 0 },
  {
    key: 'grad_norm', title: 'Gradient norm',
    about: 'Of all gradients, before clipping.',
    format: figure, tick: number,
  },
  {
    key: 'tokens_per_second', title: 'Throughput',
    about: 'Tokens per second, data included.',
    format: whole, tick: number, low: 0,
  },
  { key: 'peak_bytes', title: 'Memory', about: 'Most bytes of tensors so far.', format: bytes, exact: true, low: 0 },
  {
    key: 'mfu', title: 'Use of the machine',
    about: 'Model FLOPs over what its products reach.',
    format: percent, low: 0,
  },
];

const expertCharts = [
  {
    key: 'entropy', title: 'Evenness',
    about: 'Entropy of the load over that of an even one, least even layer.',
    format: figure, tick: number,
  },
  {
    key: 'peak_to_mean', title: 'Busiest expert',
    about: 'Its load over the even one, worst layer; 1 is balanced.',
    format: figure, tick: number,
  },
  {
    key: 'dead_experts', title: 'Experts without tokens',
    about: 'In the step, over all layers.',
    format: number, low: 0, exact: true, whole: true,
  },
  {
    key: 'dropped_fraction', title: 'Dropped',
    about: 'Share of the choices that found no room.',
    format: percent, low: 0,
  },
  {
    key: 'balance_loss', title: 'Balance loss',
    about: 'Mean over layers, before its coefficient.',
    format: figure, tick: number,
  },
  {
    key: 'z_loss', title: 'Router z-loss',
    about: 'Mean over layers, before its coefficient.',
    format: figure, tick: number,
  },
];

const charts = [];
let heatMaps = [];

function setCursor(step) {
  view.cursor = step;
  for (const chart of charts) chart.drawCursor();
}

function redraw() { for (const chart of charts) chart.draw(); }

function addCharts(specs, place) {
  for (const spec of specs) {
    if (!data.runs.some((run) => run.curves[spec.key])) continue;
    const chart = new Chart(spec, data.runs, view, setCursor);
    charts.push(chart);
    place.append(chart.node);
  }
  return place.children.length > 0;
}

function addControls(place) {
  const slider = element('input', { type: 'range', min: '0', max: '0.99', step: '0.01', value: String(view.weight) });
  const shown = element('output', {}, view.weight.toFixed(2));
  slider.addEventListener('input', () => {
    view.weight = Number(slider.value);
    shown.textContent = view.weight.toFixed(2);
    redraw();
  });
  place.append(element('label', {}, 'Smoothing', slider, shown));
  if (data.runs.length < 2) return;
  const runs = element('div', { class: 'runs', role: 'group', 'aria-label': 'Runs shown' });
  data.runs.forEach((run, index) => {
    const box = element('input', { type: 'checkbox' });
    box.checked = true;
    box.addEventListener('change', () => {
      if (box.checked) view.hidden.delete(index);
      else view.hidden.add(index);
      redraw();
    });
    runs.append(element('label', {}, box, lineKey(index), run.name));
  });
  place.append(runs);
}

function drawHeatMaps(reach) {
  const colors = new LoadColors(reach);
  for (const map of heatMaps) map.draw(colors);
  const ramp = document.getElementById('ramp');
  const image = new ImageData(ramp.width, 1);
  for (let i = 0; i < ramp.width; i += 1) {
    image.data.set(colors.of(2 ** (reach * (2 * (i / (ramp.width - 1)) - 1))), 4 * i);
  }
  ramp.getContext('2d').putImageData(image, 0, 0);
}

function showLoads(run) {
  const layers = run.heat.layers.map((layer) => ({ ...layer, shares: decodedShares(layer.cells) }));
  const reach = LoadColors.reach(layers);
  heatMaps = layers.map((layer) => new HeatMap(layer, run.heat.columns));
  document.getElementById('heat-maps').replaceChildren(...heatMaps.map((map) => map.node));
  const ends = {
    0.5: ['0.71 ×', '1.41 ×'], 1: ['½ ×', '2 ×'], 2: ['¼ ×', '4 ×'], 3: ['⅛ ×', '8 ×'],
  }[reach];
  document.getElementById('ramp-low').textContent = `${ends[0]} even, or less`;
  document.getElementById('ramp-high').textContent = `${ends[1]}, or more`;
  drawHeatMaps(reach);
  return reach;
}

function addLoads() {
  const runs = data.runs.filter((run) => run.heat.layers.length > 0);
  if (!runs.length) {
    document.getElementById('loads').remove();
    return;
  }
  const place = document.getElementById('load-controls');
  let reach = 1;
  if (runs.length > 1) {
    const select = element('select', {}, ...runs.map((run, i) => element('option', { value: String(i) }, run.name)));
    select.addEventListener('change', () => { reach = showLoads(runs[Number(select.value)]); });
    place.append(element('label', {}, 'Run', select));
  }
  const ramp = element('canvas', { id: 'ramp', width: '140', height: '1', 'aria-hidden': 'true' });
  place.append(element(
    'div', { class: 'ramp' }, element('span', { id: 'ramp-low' }), ramp, element('span', { id: 'ramp-high' })));
  place.append(element('div', { class: 'ramp' }, element('span', { class: 'dead' }), 'no token at all'));
  reach = showLoads(runs[0]);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => drawHeatMaps(reach));
}

addControls(document.getElementById('controls'));
addCharts(trainingCharts, document.getElementById('training-charts'));
if (!addCharts(expertCharts, document.getElementById('expert-charts'))) document.getElementById('experts').remove();
addLoads();
redraw();
let width = innerWidth;
addEventListener('resize', () => {
  if (innerWidth === width) return;
  width = innerWidth;
  redraw();
});
