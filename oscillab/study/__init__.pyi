from oscillab.study.figures import draw as draw
