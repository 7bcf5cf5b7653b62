"""How a call is made: admitted, sent, judged, and repeated where that is safe."""
