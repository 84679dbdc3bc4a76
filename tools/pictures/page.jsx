// The page: gives each panel of data.json to its component of Perses, at its place in Grafana's grid.
// mapping.py decides everything about a panel; only the frame around it (with its title) is this page's.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { platformApi } from 'zrender/lib/core/platform.js';
import { CssBaseline, ThemeProvider } from '@mui/material';
import { ChartsProvider, SnackbarProvider, TimeZoneProvider, generateChartsTheme, getTheme } from '@perses-dev/components';
import { TimeRangeProvider } from '@perses-dev/plugin-system';
import { HeatMapChart } from '@perses-dev/heatmap-chart-plugin/lib/components/HeatMapChart';
import { StatChartPanel } from '@perses-dev/stat-chart-plugin/lib/StatChartPanel';
import { TablePanel } from '@perses-dev/table-plugin/lib/TablePanel';
import { TimeSeriesChartPanel } from '@perses-dev/timeseries-chart-plugin/lib/TimeSeriesChartPanel';

// Grafana's classic palette, in its order, for series without a colour of their own.
const PALETTE = [
  '#7EB26D', '#EAB839', '#6ED0E0', '#EF843C', '#E24D42', '#1F78C1', '#BA43A9', '#705DA0', '#508642', '#CCA300',
];
const UNIT = 38; // a row of Grafana's grid: 30 pixels, and 8 between two panels
const GAP = 8;
const TITLE = 30;

const wanted = new URLSearchParams(location.search);
const mode = wanted.get('mode');
const ground = mode === 'dark' ? '#111217' : '#f4f5f5';
const card = mode === 'dark' ? '#181b1f' : '#ffffff';
const line = mode === 'dark' ? '#2b2d33' : '#dfe1e4';

// ECharts takes the width of a Chinese character as the height of a line, and cuts labels off if no font has it.
const measureText = platformApi.measureText;
platformApi.measureText = (text, font) => (text === '国' ? { width: parseFloat(/([\d.]+)px/.exec(font)?.[1] ?? 12) } : measureText(text, font));

function Content({ panel, window: shown, size }) {
  if (panel.kind === 'heatmap') {
    if (!panel.heat.cells.length) return <Nothing size={size} />;
    const counts = panel.heat.cells.map((cell) => cell[2]);
    return (
      <HeatMapChart
        width={size.width} height={size.height}
        data={panel.heat.cells.map((value) => ({ value, label: String(value[2]) }))}
        xAxisCategories={panel.heat.times} yAxisCategories={panel.heat.bounds.map((bound) => String(bound ?? Infinity))}
        countMin={0} countMax={Math.max(...counts)}
        timeScale={{ startMs: shown.start, endMs: shown.end, stepMs: shown.step, rangeMs: shown.end - shown.start }}
        {...panel.spec}
      />
    );
  }
  const queryResults = panel.results.map((series) => ({
    definition: { kind: 'TimeSeriesQuery', spec: { plugin: { kind: 'PrometheusTimeSeriesQuery', spec: {} } } },
    data: { series, timeRange: { start: new Date(shown.start), end: new Date(shown.end) }, stepMs: shown.step },
  }));
  if (!queryResults.some((result) => result.data.series.length)) return <Nothing size={size} />;
  const Component = { timeseries: TimeSeriesChartPanel, stat: StatChartPanel, table: TablePanel }[panel.kind];
  return <Component spec={widened(panel, size)} contentDimensions={size} queryResults={queryResults} />;
}

// A table's columns without a width share the rest of the width; Perses would give all columns the same.
function widened({ kind, spec }, size) {
  if (kind !== 'table') return spec;
  const shown = spec.columnSettings.filter((column) => !column.hide);
  const open = shown.filter((column) => !column.width).length;
  const left = size.width - shown.reduce((sum, column) => sum + (column.width ?? 0), 0);
  return { ...spec, columnSettings: spec.columnSettings.map((column) => ({ width: left / open, ...column })) };
}

function Nothing({ size }) {
  return <div className="nothing" style={{ ...size, display: 'grid', placeItems: 'center', opacity: 0.6 }}>No data</div>;
}

function Panel({ panel, window, column }) {
  const { x, y, w, h } = panel.place;
  const width = w * column - GAP;
  const height = h * UNIT - GAP;
  return (
    <section style={{
      position: 'absolute', left: x * column + GAP / 2, top: y * UNIT, width, height, boxSizing: 'border-box',
      background: card, border: `1px solid ${line}`, borderRadius: 3, overflow: 'hidden',
    }}>
      <h3 style={{ margin: 0, padding: '6px 10px', height: TITLE, boxSizing: 'border-box', font: '500 14px sans-serif' }}>
        {panel.title}
      </h3>
      <Content panel={panel} window={window} size={{ width: width - 2, height: height - TITLE - 4 }} />
    </section>
  );
}

function Row({ row, window, column, index }) {
  const tall = Math.max(...row.panels.map((panel) => panel.place.y + panel.place.h));
  return (
    <div id={`row-${index}`} style={{ padding: '4px 0' }}>
      <h2 style={{ margin: 0, padding: '6px 12px', font: '500 16px sans-serif' }}>{row.title}</h2>
      <div style={{ position: 'relative', height: tall * UNIT }}>
        {row.panels.map((panel) => <Panel key={panel.title} panel={panel} window={window} column={column} />)}
      </div>
    </div>
  );
}

async function main() {
  const data = await (await fetch('data.json')).json();
  const board = data.boards[wanted.get('board')];
  const theme = getTheme(mode);
  theme.palette.background.default = card; // the background of legends
  const charts = generateChartsTheme(theme, { echartsTheme: { color: PALETTE } });
  const column = document.documentElement.clientWidth / 24;
  createRoot(document.getElementById('page')).render(
    <ThemeProvider theme={theme}>
      <CssBaseline />
      <ChartsProvider chartsTheme={charts}>
        <SnackbarProvider>
          <TimeZoneProvider timeZone="UTC">
            <TimeRangeProvider timeRange={{ start: new Date(data.window.start), end: new Date(data.window.end) }}>
              <div id="board" style={{ background: ground }}>
                {board.map((row, index) => <Row key={row.title} {...{ row, index, column, window: data.window }} />)}
              </div>
            </TimeRangeProvider>
          </TimeZoneProvider>
        </SnackbarProvider>
      </ChartsProvider>
    </ThemeProvider>,
  );
  await document.fonts.ready;
  // Charts measure themselves after their layout, legends after that.
  setTimeout(() => { window.drawn = true; }, 1500);
}

main().catch((error) => { window.drawn = true; throw error; });
