// uPlot, without what no chart here uses: legends, zooming with the mouse, bars, points, time words, axes that are not linear
// or stand upright. What is settled by how components/Chart.svelte calls it is written in as a constant; the minifier then
// drops what can never run. Each edit must still fit, so that another version of uPlot is not trimmed wrongly in silence.
import type { Plugin } from 'vite';

const edits: [what: RegExp, by: string][] = [
  // One x axis below, linear, of time or of numbers; lines over it.
  [/\bmode == 1\b/g, 'true'],
  [/\bmode == 2\b/g, 'false'],
  [/\bms == 1\b/g, 'false'],
  [/\b(scaleX|sx)\.ori == 0\b/g, 'true'],
  [/\bscaleX\.ori == 1\b/g, 'false'],
  [/\b(scaleX)\.dir\b/g, '1'],
  [/\b(scale|sc)\.dir == -1\b/g, 'false'],
  [/\bsc\.distr == 1\b/g, 'true'],
  [/(\b\w+\.distr|\bdistr|\bxScaleDistr) (==\s+(2|3|4|100)|>= 3)\b/g, 'false'],
  [/const xySeriesOpts = \{.*?\n\};/s, ''],
  [/\brn = \(self, dataMin, dataMax\) => .*? rangeNum\(.*?;/, ''],
  [/\brn \|\| \(isTime \? snapTimeX : .*?\n\s*\)\);/s, 'rn || snapNumX);'],
  // Its axes: no title, ticks or border; how values are written is told, or as numbers.
  [/\baxis\.label != null/g, 'false'],
  [/\b(ticks|border)\.show\b/g, 'false'],
  [/axis\.values = \(.*?\n\t{3}\);/s, 'axis.values = av || numAxisVals;'],
  [/axis\.filter = .*/, 'axis.filter = retArg1;'],
  [/const _fmtDate = .*/, ''],
  [/const _timeAxisVals +=.*/, ''],
  [/const _timeSeriesVal +=.*/, ''],
  [/s\.value = isTime .*/, ''],
  [/const _timeAxisStamps = \[.*?\n\t\];/s, 'const _timeAxisStamps = null;'],
  [/const \[ timeIncrsMs,.*/, ''],
  // Its lines: no points on them, no bands between them.
  [/opts\.bands \|\| \[\]/, '[]'],
  [/\bflags != 0 && bands\b/, 'false && bands'],
  [/= bandFillClipDirs\(u, seriesIdx\)/g, '= [0, 0]'],
  [/show: seriesPointsShow,/, 'show: false,'],
  [/const pointsPath = .*/, 'const pointsPath = null;'],
  // The pointer is followed, and nothing more.
  [/\bconst showLegend = .*/, 'const showLegend = false;'],
  [/\bconst showCursor = .*/, 'const showCursor = true;'],
  [/\bconst cursorFocus = .*/, 'const cursorFocus = false;'],
  [/\bconst cursorOnePt = .*/, 'const cursorOnePt = false;'],
  [/\bselect\.show\b/g, 'false'],
  [/\bdragging\b(?! =)/g, 'false'],
  [/didDrag && drag\.click\(self, e\);/, ''],
  [/events\.(mousedown|mouseup|dblclick) = .*/g, ''],
  [/events\["setSeries"\] = .*?\n\t\};/s, ''],
  [/onMouse\((mousedown|dblclick), +over, .*/g, ''],
  // What only callers from outside would use.
  [/self\.(addSeries|delSeries|setSeries|addBand|setBand|delBand|batch|setSelect|setLegend) = .*/g, ''],
  [/\nuPlot\.assign = .*(?=\nexport)/s, ''],
];

export const trim_plot: Plugin = {
  name: 'trim-plot',
  apply: 'build',
  transform(code, id) {
    if (!id.includes('node_modules/uplot')) return null;
    for (const [what, by] of edits) {
      const next = code.replace(what, by);
      if (next === code) this.error(`${id} is not the uPlot that scripts/trim_plot.ts knows: ${what} is not in it.`);
      code = next;
    }
    return { code, map: null };
  },
};
