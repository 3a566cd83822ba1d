/* What every page does: read its numbers, draw its charts, sort its tables. */
"use strict";

const laughstore = {
  data: JSON.parse(document.getElementById("page-data").textContent),
  config: { displaylogo: false, displayModeBar: false, responsive: true, doubleClick: "reset" },
};

laughstore.drawCharts = function () {
  for (const place of document.querySelectorAll("[data-chart]")) {
    const figure = laughstore.data.charts[place.dataset.chart];
    Plotly.newPlot(place, figure.data, figure.layout, laughstore.config);
  }
};

/* Cells without a value stay behind all others, whatever the direction. */
laughstore.sortTable = function (table, column, direction) {
  const numeric = table.tHead.rows[0].cells[column].classList.contains("numeric");
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => {
    const order = row.cells[column].dataset.order;
    return { row, key: order === "" ? null : numeric ? Number(order) : order };
  });
  const sign = direction === "descending" ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    return sign * (numeric ? a.key - b.key : a.key.localeCompare(b.key));
  });
  body.append(...keyed.map((item) => item.row));
  Array.from(table.tHead.rows[0].cells).forEach((cell, number) => {
    cell.setAttribute("aria-sort", number === column ? direction : "none");
  });
};

laughstore.makeSortable = function (table) {
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    cell.querySelector("button").addEventListener("click", () => {
      const now = cell.getAttribute("aria-sort");
      const first = cell.classList.contains("numeric") ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      laughstore.sortTable(table, column, now === first ? other : first);
    });
  });
};

laughstore.drawCharts();
document.querySelectorAll("table.sortable").forEach(laughstore.makeSortable);
