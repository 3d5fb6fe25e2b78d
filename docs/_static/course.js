// The widget manager asks MathJax 2 to typeset its HTML; this is MathJax 3, and no widget here holds a formula.
if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue() {} };
