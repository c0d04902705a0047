from oscillab.study.drawing import draw as draw
