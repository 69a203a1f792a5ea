// Package bench measures where the time goes: rendering alone, the server alone
// and the whole, one after the other in each repeat, and sets what is achieved
// against what this machine could do at best.
package bench
